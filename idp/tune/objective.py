"""The differentiable loss of examples under a soft prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from idp.errors import PromptTooLongError, TaskError, suggest
from idp.run.forward import call_model
from idp.run.packing import Layout, Request, causal_option_mask, lay_out
from idp.run.uncached import positions_of
from idp.run.ways import reach, way_of
from idp.tune.examples import Example

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Goal", "Objective", "length_groups"]

Goal = Literal["error", "blend", "answer", "choice"]

TEXT_TOKENS = 96
TEXT_WEIGHT = 4.0
"""A page's mean loss per token weighs about as much as the few tokens of an answer."""


class Objective:
    """The loss that prompts are tuned on.

    With `l_j = log P(option j | prompt, context)`, summed over the option's tokens, and the right option `a`:

        answer = -l_a,    choice = -log softmax(l)_a,    blend = answer + choice,    error = 1 - softmax(l)_a.

    An example with one option has nothing to choose: `choice` is its `answer`, and `error` is `1 - exp(l_a)`, which is
    what selectors are judged by (`example_losses`); it leaves hopeless examples alone. Of running text the first 96
    tokens count: four times their mean loss, or for `error` one minus their geometric mean probability. Special tokens
    that begin it are left out, since the doubled bos of rolling likelihoods is nothing that compression broke.

    Where the model allows it, a row is the context and all its options, which do not see each other, behind the keys
    and values of the prompt, and a prompt shared by all rows is computed once; else every option is a plain row.

    Args:
        lm: the model; only the prompts get gradients.
        goal: `error`, `blend`, `answer` or `choice`.

    Raises:
        TaskError: an unknown goal.

    Source: prompt tuning, arXiv 2104.08691 section 2 (`answer`); on a compressed model, arXiv 2305.11186.

    Example:
        >>> Objective(lm).losses(torch.zeros(1, 16, lm.hidden_size), examples).shape  # doctest: +SKIP
        torch.Size([32])
    """

    def __init__(self, lm: LanguageModel, goal: Goal = "blend") -> None:
        """Check the goal, and find out once how the model can be run."""
        if goal not in get_args(Goal):
            raise TaskError(f"unknown tuning objective {goal!r}. {suggest(str(goal), get_args(Goal))}")
        self.lm = lm
        self.goal = goal
        self._special = frozenset(lm.tokenizer.all_special_ids)
        self._reach = reach(lm, "packed" if way_of(lm) == "packed" else "plain")  # copies would not carry gradients

    def losses(self, prompts: Tensor, examples: Sequence[Example]) -> Tensor:
        """Compute the loss of each example.

        Args:
            prompts: `(B, n, d)`, or `(1, n, d)` for one prompt in front of all.
            examples: `B` examples; they are best of similar length (`length_groups`).

        Returns:
            `(B,)` in nats, fp32, with gradients to `prompts`.

        Raises:
            PromptTooLongError: a prompt and an example do not fit into the model's context.
        """
        requests = [self._request(example) for example in examples]
        span = prompts.shape[1] + max(request.span for request in requests)
        if span > self.lm.max_length:
            raise PromptTooLongError(
                f"a prompt of {prompts.shape[1]} tokens and an example make {span} tokens, but the context of "
                f"{self.lm.name} holds {self.lm.max_length}. Leave long examples out or tune a shorter prompt."
            )
        columns = prompts.shape[1] + max(request.packed_length for request in requests)
        run = self._packed if columns <= self._reach else self._plain
        likelihoods = run(prompts.to(device=self.lm.device, dtype=self.lm.dtype), requests)  # (options,)
        return self._combine(likelihoods, examples, requests)

    def _request(self, example: Example) -> Request:
        if example.is_text:
            skipped = next((i for i, token in enumerate(example.right) if token not in self._special), 0)
            return Request(example.context, (example.right[skipped : skipped + TEXT_TOKENS],))
        if self.goal == "answer":
            return Request(example.context, (example.right,))
        return example.request

    def _combine(self, likelihoods: Tensor, examples: Sequence[Example], requests: list[Request]) -> Tensor:
        """Turn the log-likelihoods of all options `(options,)` into losses `(B,)`."""
        counts = [len(request.continuations) for request in requests]
        table = pad_sequence(list(torch.split(likelihoods, counts)), batch_first=True, padding_value=-torch.inf)
        answers = [example.answer if count > 1 else 0 for example, count in zip(examples, counts, strict=True)]
        right = table.gather(1, torch.tensor(answers, device=table.device)[:, None])[:, 0]  # (B,)
        weights = [self._answer_weight(*pair) for pair in zip(examples, requests, strict=True)]
        choice = table.logsumexp(1) - right  # (B,), 0 where there is one option
        loss = choice - right * right.new_tensor(weights)  # (B,)
        return 1 - (-loss).exp() if self.goal == "error" else loss

    def _answer_weight(self, example: Example, request: Request) -> float:
        if example.is_text:
            return (1 if self.goal == "error" else TEXT_WEIGHT) / len(request.continuations[0])
        return float(self.goal in ("blend", "answer") or len(request.continuations) == 1)

    def _packed(self, prompts: Tensor, requests: list[Request]) -> Tensor:
        lm, device, length = self.lm, self.lm.device, prompts.shape[1]
        layout = lay_out(requests, lm.pad_token_id)
        logits = call_model(
            lm,
            input_ids=layout.input_ids.to(device),
            attention_mask=causal_option_mask(
                layout.segments.to(device), torch.ones(len(requests), length, device=device), lm.dtype
            ),
            position_ids=(layout.positions + length).to(device),
            past_key_values=_prefill(lm, prompts, len(requests)),
            use_cache=True,
            logits_to_keep=layout.tail,
        )  # (B, K, V)
        return _option_likelihoods(logits, layout)

    def _plain(self, prompts: Tensor, requests: list[Request]) -> Tensor:
        lm, device, length = self.lm, self.lm.device, prompts.shape[1]
        rows = [(i, Request(r.context, (option,))) for i, r in enumerate(requests) for option in r.continuations]
        layout = lay_out([request for _, request in rows], lm.pad_token_id)
        owners = torch.tensor([i if len(prompts) > 1 else 0 for i, _ in rows], device=device)
        tokens = (layout.segments >= 0).to(device)  # (R, Q)
        # The prompt goes between padding and text.
        start = (~tokens).sum(1, keepdim=True)  # (R, 1)
        embeds = lm.embed(layout.input_ids)  # (R, Q, d)
        rows_of = [
            torch.cat([prompt, row[int(gap) :]])
            for prompt, row, gap in zip(prompts[owners], embeds, start[:, 0], strict=True)
        ]
        width = length + embeds.shape[1]
        full = torch.stack([pad(row, (0, 0, width - len(row), 0)) for row in rows_of])  # (R, n + Q, d)
        mask = (torch.arange(width, device=device) >= start).long()  # (R, n + Q)
        logits = call_model(
            lm,
            inputs_embeds=full,
            attention_mask=mask,
            position_ids=positions_of(mask),
            use_cache=False,
            logits_to_keep=layout.tail,
        )  # (R, K, V)
        return _option_likelihoods(logits, layout)


def length_groups(examples: Sequence[Example]) -> list[list[int]]:
    """Group examples of similar length, so that little is padded; running text, which needs more logits, apart.

    Args:
        examples: examples in any order.

    Returns:
        Positions in `examples`; each is in one group.

    Example:
        >>> short, long = Example((1, 2), ((3,),), 0, "t"), Example((1,) * 90, ((3,),), 0, "t")
        >>> length_groups([short, long, short])
        [[0, 2], [1]]
    """
    lengths = [_length(example) for example in examples]
    groups: list[list[int]] = []
    for i in sorted(range(len(examples)), key=lambda i: (examples[i].is_text, lengths[i], i)):
        first = groups[-1][0] if groups else None
        if first is None or examples[i].is_text != examples[first].is_text or _too_unequal(lengths[i], lengths[first]):
            groups.append([])
        groups[-1].append(i)
    return groups


def _too_unequal(longest: int, shortest: int) -> bool:
    """Whether the shorter would be mostly padding beside the longer (a rule of thumb)."""
    return longest > 1.4 * shortest + 8


def _length(example: Example) -> int:
    return min(len(example.right), TEXT_TOKENS) if example.is_text else example.request.packed_length


def _prefill(lm: LanguageModel, prompts: Tensor, rows: int) -> DynamicCache:
    """Keys and values of the prompts, with gradients; a single prompt is computed once and repeated."""
    count, length, _ = prompts.shape
    cache = DynamicCache()
    call_model(
        lm,
        inputs_embeds=prompts,
        attention_mask=torch.ones(count, length, dtype=torch.long, device=prompts.device),
        position_ids=torch.arange(length, device=prompts.device).expand(count, -1),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    if count == 1 and rows > 1:
        cache.batch_repeat_interleave(rows)
    return cache


def _option_likelihoods(logits: Tensor, layout: Layout) -> Tensor:
    """Sum the log-probabilities of each option's tokens: logits `(B, K, V)` to `(options,)`."""
    rows, columns, sources, targets, owners = (
        indices.to(logits.device)
        for indices in (layout.rows, layout.columns, layout.sources, layout.targets, layout.owners)
    )
    # Positions are taken once and then repeated: gradients of a place that indexing takes several times are added up by
    # threads in any order, those of index_select in one.
    picked = logits[rows, columns].float().index_select(0, sources)  # (N, V)
    losses = cross_entropy(picked, targets, reduction="none")  # (N,)
    return losses.new_zeros(layout.num_options).index_add(0, owners, -losses)
