"""Log-likelihoods of continuations, each request under its own prompt.

The context of a question is read once for all its options, and the prompt not at all: it is there as cached keys and
values. See `idp.run.packing` for the layout of a row.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from idp.errors import IdpError, ModelError, PromptTooLongError, TaskError
from idp.run.forward import attention_window, call_model, takes_4d_masks
from idp.run.packing import Layout, Request, causal_option_mask, lay_out, too_unequal
from idp.run.prefix import assemble
from idp.run.uncached import positions_of, prompted_embeds

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel
    from idp.run.prefix import PrefixStore

__all__ = ["Request", "Score", "Scored", "score"]

log = logging.getLogger(__name__)

_MAX_LOGITS = 2**24  # logits turned into log-probabilities at once: 64 MB in fp32


class Score(NamedTuple):
    """What a model thinks of one continuation.

    Attributes:
        loglikelihood: `log P(continuation | prompt, context)` in nats, summed over its tokens; 0 for an empty one.
        is_greedy: whether every token of it is the model's first choice.
    """

    loglikelihood: float
    is_greedy: bool


class Scored(NamedTuple):
    """The answer to one request.

    Attributes:
        scores: one per continuation.
        seconds: this request's share of the time its batch took.
    """

    scores: tuple[Score, ...]
    seconds: float


@dataclass(frozen=True)
class _Job:
    """One row to run: a whole request, or one option of it where options cannot share a row."""

    number: int  # of the request it belongs to
    first: int  # which option of that request is its first
    request: Request
    choice: int


def score(
    store: PrefixStore,
    requests: Sequence[Request],
    choices: Sequence[int],
    *,
    batch_size: int,
    advance: Callable[[int], None] | None = None,
) -> list[Scored]:
    """Score the continuations of every request under the prompt chosen for it.

    `log P(c_1..c_L | P, context) = sum_t log softmax(logits_{t-1})[c_t]`, where `logits_0` are those of the last
    context token. All options of a request are scored under the same prompt.

    Where the model allows it, a row holds the context and all options of a request, under a mask in which options
    do not see each other; a model that takes no such mask (ALiBi), and a request longer than a sliding attention
    window, is run as one plain row per option, with the same result.

    Args:
        store: the model and its prompts.
        requests: what to score, in any order: they are sorted by length into batches.
        choices: for each request the index of its prompt, -1 for none; they may be mixed.
        batch_size: rows run at once.
        advance: called with the number of requests just finished, for a progress bar.

    Returns:
        One answer per request, in the order of the requests.

    Raises:
        TaskError: an empty context, an unequal number of choices, or a batch size below 1.
        PromptTooLongError: prompt, context and an option do not fit into the model's context.
        SelectorError: a choice is not in the bank.
        ModelError: the model computed NaN.

    Example:
        >>> request = Request(context=(1, 17, 4), continuations=((9,), (5, 6)))  # doctest: +SKIP
        >>> score(store, [request], [-1], batch_size=8)[0].scores[0].loglikelihood  # doctest: +SKIP
        -3.21
    """
    _check(store, requests, choices, batch_size)
    if not requests:
        return []
    packed, single = _jobs(store, requests, choices)
    found: list[list[Score]] = [[Score(0.0, True)] * len(request.continuations) for request in requests]
    seconds = [0.0] * len(requests)
    open_rows = [0] * len(requests)
    for job in packed + single:
        open_rows[job.number] += 1
    for jobs, run in ((packed, _run_packed), (single, _run_plain)):
        for batch in _batches(jobs, batch_size):
            begun = time.perf_counter()
            scores = _score_batch(store, batch, run)
            share = (time.perf_counter() - begun) / len(batch)
            for job, row in zip(batch, scores, strict=True):
                found[job.number][job.first : job.first + len(row)] = row
                seconds[job.number] += share
                open_rows[job.number] -= 1
            if advance is not None:
                advance(len({job.number for job in batch if open_rows[job.number] == 0}))
    return [Scored(tuple(scores), spent) for scores, spent in zip(found, seconds, strict=True)]


def _check(store: PrefixStore, requests: Sequence[Request], choices: Sequence[int], batch_size: int) -> None:
    if len(choices) != len(requests):
        raise TaskError(f"{len(requests)} requests were given with {len(choices)} choices of a prompt; give one each.")
    if batch_size < 1:
        raise TaskError(f"a batch size of {batch_size} is not possible; give 1 or more.")
    lengths = {choice: store.length(choice) for choice in set(choices)}
    limit = store.lm.max_length
    for row, (request, choice) in enumerate(zip(requests, choices, strict=True)):
        if not request.context:
            raise TaskError(f"request {row} has an empty context; begin it with the bos or eos token.")
        if lengths[choice] + request.span > limit:
            raise PromptTooLongError(
                f"request {row} does not fit: {lengths[choice]} tokens of {store.name(choice)}, {len(request.context)} "
                f"of context and {request.span - len(request.context)} of its longest option make "
                f"{lengths[choice] + request.span}, but the context of {store.lm.name} holds {limit}. "
                "Shorten the context or choose a shorter prompt."
            )


def _jobs(store: PrefixStore, requests: Sequence[Request], choices: Sequence[int]) -> tuple[list[_Job], list[_Job]]:
    """Split the requests into rows that hold all their options, and rows of one option each."""
    reach = (attention_window(store.lm) or store.lm.max_length) if packs_options(store) else 0
    packed: list[_Job] = []
    single: list[_Job] = []
    for number, (request, choice) in enumerate(zip(requests, choices, strict=True)):
        if store.length(choice) + request.span <= reach:
            packed.append(_Job(number, 0, request, choice))
        else:
            single.extend(_one_by_one(number, request, choice))
    return packed, single


def _one_by_one(number: int, request: Request, choice: int) -> list[_Job]:
    """Make a job of each option; a request without any is a job too, so that it is counted as done."""
    if not request.continuations:
        return [_Job(number, 0, request, choice)]
    return [
        _Job(number, first, Request(request.context, (option,)), choice)
        for first, option in enumerate(request.continuations)
    ]


def _batches(jobs: list[_Job], batch_size: int) -> Iterator[list[_Job]]:
    """Cut the jobs into batches of similar length, the longest first, so that running out of memory comes early."""
    order = sorted(jobs, key=lambda job: (-job.request.packed_length, len(job.request.context), job.number, job.first))
    batch: list[_Job] = []
    for job in order:
        is_full = len(batch) == batch_size
        if is_full or (batch and too_unequal(batch[0].request.packed_length, job.request.packed_length)):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


@torch.no_grad()
def _score_batch(
    store: PrefixStore, batch: list[_Job], run: Callable[[PrefixStore, list[_Job], Layout], Tensor]
) -> list[list[Score]]:
    """Run one batch; returns the scores of each row's options."""
    layout = lay_out([job.request for job in batch], store.lm.pad_token_id)
    flat = _gather(run(store, batch, layout), layout, store.lm)
    ends = iter(flat)
    return [[next(ends) for _ in job.request.continuations] for job in batch]


def _run_packed(store: PrefixStore, batch: list[_Job], layout: Layout) -> Tensor:
    """Logits `(B, K, V)` of rows of packed options behind cached prompts."""
    lm, device = store.lm, store.lm.device
    cache, prefix_mask = assemble([store[job.choice] for job in batch])
    lengths = torch.tensor([store.length(job.choice) for job in batch])[:, None]  # (B, 1)
    return call_model(
        lm,
        input_ids=layout.input_ids.to(device),
        attention_mask=causal_option_mask(layout.segments.to(device), prefix_mask.to(device), lm.dtype),
        position_ids=(layout.positions + lengths).to(device),
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=layout.tail,
    )


def _run_plain(store: PrefixStore, batch: list[_Job], layout: Layout) -> Tensor:
    """Logits `(B, K, V)` of rows of one option each, prompt and all computed as plain input."""
    options = [job.request.continuations[0] if job.request.continuations else () for job in batch]
    inputs = [[*job.request.context, *option[:-1]] for job, option in zip(batch, options, strict=True)]
    embeds, mask = prompted_embeds(store, [job.choice for job in batch], inputs)
    return call_model(
        store.lm,
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=positions_of(mask),
        use_cache=False,
        logits_to_keep=layout.tail,
    )


def _gather(logits: Tensor, layout: Layout, lm: LanguageModel) -> list[Score]:
    """Read the scores of all options of a batch off its logits `(B, K, V)`."""
    total = torch.zeros(layout.num_options, dtype=torch.float64, device=logits.device)
    misses = torch.zeros(layout.num_options, dtype=torch.long, device=logits.device)
    step = max(1, _MAX_LOGITS // logits.shape[-1])
    for begin in range(0, len(layout.targets), step):
        part = slice(begin, begin + step)
        rows, columns, targets, owners = (
            indices[part].to(logits.device) for indices in (layout.rows, layout.columns, layout.targets, layout.owners)
        )
        picked = logits[rows, columns].float()  # (N, V)
        total.index_add_(0, owners, -cross_entropy(picked, targets, reduction="none").double())
        misses.index_add_(0, owners, (picked.argmax(-1) != targets).long())
    if torch.isnan(total).any():
        raise ModelError(
            f"{lm.name} computed NaN instead of probabilities: its weights are damaged or overflow in {lm.dtype}. "
            "Try --dtype float32."
        )
    return [Score(value, miss == 0) for value, miss in zip(total.tolist(), misses.tolist(), strict=True)]


def packs_options(store: PrefixStore) -> bool:
    """Whether several options may share a row: tried once on a request of four tokens, not assumed.

    A model may take the mask and yet not obey it (a recurrent layer, a local attention of its own), so its answer
    is compared with plain rows.
    """
    if store.packs is None:
        store.packs = takes_4d_masks(store.lm) and _packing_is_exact(store)
        if not store.packs:
            log.info("%s takes no mask for each query: options are scored in rows of their own", store.lm.name)
    return store.packs


def _packing_is_exact(store: PrefixStore) -> bool:
    last = store.lm.model.config.get_text_config().vocab_size - 1
    a, b, c, d = (min(token, last) for token in (3, 7, 11, 5))
    request = Request((a, b), ((c, d), (d, c)))
    choice = 0 if len(store) else -1
    tolerance = 1e-3 if store.lm.dtype in (torch.float32, torch.float64) else 0.5
    expected = [row[0].loglikelihood for row in _score_batch(store, _one_by_one(0, request, choice), _run_plain)]
    try:
        got = [s.loglikelihood for s in _score_batch(store, [_Job(0, 0, request, choice)], _run_packed)[0]]
    except (IdpError, AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        log.debug("packed rows failed", exc_info=error)
        return False
    return all(abs(one - other) <= tolerance for one, other in zip(expected, got, strict=True))
