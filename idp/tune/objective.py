"""The differentiable loss of examples behind soft prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from idp.errors import PromptTooLongError
from idp.model.gradients import require_gradients
from idp.run.packing import Request
from idp.run.ways import reach, way_of
from idp.tune.examples import Example, as_text
from idp.tune.live import CachedPrompts, EmbeddedPrompts, LivePrompts, Predictions
from idp.tune.memory import require_recomputation
from idp.tune.terms import TAUGHT, Reading, parse_terms, require_teacher, weigh, written

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel
    from idp.tune.teacher import Teacher

__all__ = ["TEXT_TOKENS", "TEXT_WEIGHT", "Objective", "Step"]

TEXT_TOKENS = 96
TEXT_WEIGHT = 4.0
"""A page's mean loss per token weighs about as much as the few tokens of an answer."""


class Objective:
    """The loss that prompts are tuned on: a sum of the terms of `idp.tune.terms`.

    Of running text the first `text_tokens` count, with four times their mean: a page then weighs about as much as an
    answer (for `error` it is one minus their geometric mean probability). Special tokens that begin it are left out,
    since the doubled bos of rolling likelihoods is nothing that compression broke. With `next-token` every example is
    read as running text, and its log-likelihoods are summed, as arXiv 2305.11186 does it: of `T` tokens `T - 1` are
    predicted, the first is not, and the loss of a batch is the mean over its rows.

    Where the model allows it, a row is the context and all its options, which do not see each other, behind the keys
    and values of its prompt; else every option is a plain row.

    Args:
        lm: the model; only the prompts get gradients.
        terms: a sum of terms, such as `answer+choice`.
        teacher: what the dense model said about the examples; needed by `distill` and `distill-choice`.
        text_tokens: how much of a running text counts.
        recompute: compute activations a second time in the backward pass to save memory.

    Raises:
        TaskError: an unknown term, or one that needs a teacher where there is none.
        ModelError: no gradient reaches the model's input embeddings, or activations cannot be recomputed.

    Source: prompt tuning, arXiv 2104.08691 section 2; on a compressed model, arXiv 2305.11186 (`next-token`).

    Example:
        >>> step = Objective(lm).behind([prompt])  # doctest: +SKIP
        >>> step.losses(examples).mean().backward(); step.backward()  # doctest: +SKIP
    """

    def __init__(
        self,
        lm: LanguageModel,
        terms: str = "answer+choice",
        *,
        teacher: Teacher | None = None,
        text_tokens: int = TEXT_TOKENS,
        recompute: bool = False,
    ) -> None:
        """Check the terms, and find out once how the model can be run."""
        self.lm = lm
        self.terms = parse_terms(terms)
        self.teacher = teacher
        self.text_tokens = text_tokens
        require_teacher(self.terms, teacher is not None)
        require_gradients(lm)
        self.recompute = recompute
        if recompute:
            require_recomputation(lm)
        # Layers that are recomputed take no cache, and copies of a context would not carry gradients.
        packed = not recompute and way_of(lm) == "packed"
        self.reach = reach(lm, "packed" if packed else "plain")
        self._special = frozenset(lm.tokenizer.all_special_ids)

    @property
    def name(self) -> str:
        """The terms in one string."""
        return written(self.terms)

    def views(self, examples: Sequence[Example]) -> list[Example]:
        """The view of each example."""
        return [self.view(example) for example in examples]

    def view(self, example: Example) -> Example:
        """The example as it is run: running text cut to what counts, and with `next-token` everything running text."""
        if not example.is_text:
            return as_text(example) if "next-token" in self.terms else example
        right = example.right
        skipped = next((i for i, token in enumerate(right) if token not in self._special), 0)
        return example.with_options((right[skipped : skipped + self.text_tokens],), 0)

    def request(self, example: Example) -> Request:
        """What is run for an example in its view."""
        only_right = not example.is_text and self.terms.keys() <= {"answer"}
        return Request(example.context, (example.right,)) if only_right else example.request

    def behind(self, prompts: Sequence[Tensor]) -> Step:
        """Begin a step.

        Args:
            prompts: `m` prompts `(n_i, d)`; with `requires_grad`, or computed from what has it.
        """
        return Step(self, prompts)


class Step:
    """The losses of any number of batches behind the same prompts, whose keys and values are computed once.

    Args:
        objective: the loss.
        prompts: the prompts.
    """

    def __init__(self, objective: Objective, prompts: Sequence[Tensor]) -> None:
        """Compute nothing yet."""
        lm = objective.lm
        self._objective = objective
        self._prompts = [prompt.to(device=lm.device, dtype=lm.dtype) for prompt in prompts]
        self._live: dict[str, LivePrompts] = {}

    def losses(self, examples: Sequence[Example], owners: Sequence[int] | None = None) -> Tensor:
        """Compute the loss of each example.

        Args:
            examples: `B` examples as `Objective.view` gives them, best of similar length (`idp.tune.batches`).
            owners: the number of each example's prompt; 0 for all where it is left out.

        Returns:
            `(B,)` in nats, fp32. Its `backward` takes gradients up to the prompts, that of the step to them.

        Raises:
            PromptTooLongError: a prompt and an example do not fit into the model's context.
        """
        owners = [0] * len(examples) if owners is None else owners
        requests = [self._objective.request(example) for example in examples]
        self._check(requests, owners)
        longest = max(len(self._prompts[owner]) for owner in owners)
        columns = longest + max(request.packed_length for request in requests)
        live = self._prompts_for(columns)
        predictions = live.predict(requests, owners)
        return weigh(self._objective.terms, self._read(predictions, examples, requests))

    def _prompts_for(self, columns: int) -> LivePrompts:
        """The prompts in the form that rows of a length need, computed when first used."""
        objective = self._objective
        kind = "cached" if columns <= objective.reach else "embedded"
        if kind not in self._live:
            self._live[kind] = (
                CachedPrompts(objective.lm, self._prompts)
                if kind == "cached"
                else EmbeddedPrompts(objective.lm, self._prompts, objective.recompute)
            )
        return self._live[kind]

    def backward(self) -> None:
        """Hand the gradients of all losses so far on to the prompts."""
        for live in self._live.values():
            live.backward()

    def _check(self, requests: Sequence[Request], owners: Sequence[int]) -> None:
        lm = self._objective.lm
        for request, owner in zip(requests, owners, strict=True):
            length = len(self._prompts[owner])
            if length + request.span > lm.max_length:
                raise PromptTooLongError(
                    f"a prompt of {length} tokens and an example of {request.span} make {length + request.span}, but "
                    f"the context of {lm.name} holds {lm.max_length}. Leave long examples out or tune a shorter prompt."
                )

    def _read(self, predictions: Predictions, views: Sequence[Example], requests: Sequence[Request]) -> Reading:
        """Read likelihoods, and where there is a teacher divergences, off the predictions."""
        logits, layout = predictions
        device = logits.device
        sources, targets, owners = (t.to(device) for t in (layout.sources, layout.targets, layout.owners))
        counts = [len(request.continuations) for request in requests]
        # Positions are taken once and then repeated: gradients of a place that indexing takes several times are added
        # up by threads in any order, those of index_select in one. Of running text, whose logits take the most memory,
        # each predicts one token, in order.
        as_they_are = torch.equal(layout.sources, torch.arange(len(logits)))
        picked = logits if as_they_are else logits.index_select(0, sources)  # (N, V)
        chosen = picked.log_softmax(-1).gather(1, targets[:, None])[:, 0]  # (N,)
        likelihoods = _table(_per_option(chosen, owners, layout.num_options), counts, -torch.inf)  # (B, O)
        single = torch.tensor([count == 1 for count in counts], device=device)
        answers = [0 if count == 1 else view.answer for view, count in zip(views, counts, strict=True)]
        right = likelihoods.gather(1, torch.tensor(answers, device=device)[:, None])[:, 0]  # (B,)
        lengths = [len(view.right) if view.is_text else 1 for view in views]
        tokens = torch.tensor(lengths, dtype=torch.float32, device=device)  # (B,)
        reading = Reading(likelihoods, right, single, tokens, self._scale(views, tokens))
        if (teacher := self._objective.teacher) is None or not self._objective.terms.keys() & TAUGHT:
            return reading
        taught = teacher.lesson(requests)
        divergences = _table(_per_option(taught.divergences(picked), owners, layout.num_options), counts, 0.0)
        return replace(
            reading, teacher=_table(taught.likelihoods.to(device), counts, -torch.inf), divergences=divergences
        )

    def _scale(self, views: Sequence[Example], tokens: Tensor) -> Tensor:
        if "next-token" in self._objective.terms:
            return torch.ones_like(tokens)
        text = torch.tensor([view.is_text for view in views], device=tokens.device)
        return torch.where(text, TEXT_WEIGHT / tokens, 1.0)


def _per_option(of_tokens: Tensor, owners: Tensor, options: int) -> Tensor:
    """Add up the numbers of each option's tokens: `(N,)` to `(options,)`."""
    return of_tokens.new_zeros(options).index_add(0, owners, of_tokens)


def _table(of_options: Tensor, counts: list[int], padding: float) -> Tensor:
    """One row an example: `(options,)` to `(B, O)`."""
    return pad_sequence(list(torch.split(of_options, counts)), batch_first=True, padding_value=padding)
