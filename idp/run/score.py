"""Log-likelihoods of continuations, each request under its own prompt.

The context of a question is read once for all its options, and the prompt not at all: it is there as cached keys and
values. See `idp.run.packing` for the layout of a row, and `idp.run.passes` for the ways to run a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor

from idp.errors import PromptTooLongError, TaskError
from idp.run.batching import BatchSize, Finished, run_batches
from idp.run.guard import broken_numbers
from idp.run.packing import Layout, Request, lay_out, parts_of
from idp.run.passes import Job
from idp.run.readout import readout
from idp.run.ways import PASSES, Way, bears_padding, reach, way_of

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel
    from idp.run.store import PrefixStore

__all__ = ["Request", "Score", "Scored", "run_requests", "score", "score_prompts"]

R = TypeVar("R")


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


def score(
    store: PrefixStore,
    requests: Sequence[Request],
    choices: Sequence[int],
    *,
    batch_size: int | BatchSize | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[Scored]:
    """Score the continuations of every request under the prompt chosen for it.

    `log P(c_1..c_L | P, context) = sum_t log softmax(logits_{t-1})[c_t]`, where `logits_0` are those of the last
    context token. All options of a request are scored under the same prompt, and behind one reading of the context
    where the model allows it (`way_of`). Logits are computed for the positions that predict a continuation, no others.

    Args:
        store: the model and its prompts.
        requests: what to score, in any order: they are sorted by length into batches.
        choices: for each request the index of its prompt, -1 for none; they may be mixed.
        batch_size: rows run at once; None finds a size. A batch that does not fit into memory is halved and run again.
            Pass a `BatchSize` to keep what was found for later calls.
        advance: called with the number of requests just finished, for a progress bar.

    Returns:
        One answer per request, in the order of the requests.

    Raises:
        TaskError: an empty context, an unequal number of choices, or a batch size below 1.
        PromptTooLongError: prompt, context and an option do not fit into the model's context.
        SelectorError: a choice is not in the bank.
        ModelError: the model computed NaN, or a single row does not fit into memory.

    Example:
        >>> request = Request(context=(1, 17, 4), continuations=((9,), (5, 6)))  # doctest: +SKIP
        >>> score(store, [request], [-1])[0].scores[0].loglikelihood  # doctest: +SKIP
        -3.21
    """
    board = _Board(requests, advance)
    for batch in run_requests(store, requests, choices, _score_batch, batch_size):
        board.enter(*batch)
    return board.answers()


def run_requests(
    store: PrefixStore,
    requests: Sequence[Request],
    choices: Sequence[int],
    run_batch: Callable[[PrefixStore, list[Job], Way], R],
    batch_size: int | BatchSize | None = None,
) -> Iterator[Finished[Job, R]]:
    """Run requests in batches, each under its own prompt: what `score` does to them, or anything else.

    Args:
        store: the model and its prompts.
        requests: what to run, in any order; one with many options may become several jobs.
        choices: for each request the index of its prompt, -1 for none.
        run_batch: runs one batch in the way given.
        batch_size: as for `score`.

    Yields:
        Every batch as soon as it is done.

    Raises:
        IdpError: as for `score`.
    """
    size = batch_size if isinstance(batch_size, BatchSize) else BatchSize(batch_size)
    _check(store, requests, choices)
    beside = max((store.length(choice) for choice in set(choices)), default=0)  # every row may be padded to it
    for way, jobs in _jobs(store, requests, choices, beside).items():

        def run(batch: list[Job], way: Way = way) -> R:
            return run_batch(store, batch, way)

        one_at_a_time = way == "plain" and jobs and not bears_padding(store.lm)
        at_once = BatchSize(1) if one_at_a_time else size
        yield from run_batches(jobs, _length, run, at_once, store.lm, beside=beside)


def score_prompts(
    store: PrefixStore,
    requests: Sequence[Request],
    *,
    batch_size: int | BatchSize | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[list[Scored]]:
    """Score the continuations of every request under every prompt, and under none.

    A prompt changes every key and value behind it, so prompts cannot share a reading of the context: what is shared is
    the context between options, and the prompt, computed once, between all requests. The rows of a batch have the same
    prompt, so that none is padded to a longer one.

    Args:
        store: the model and its `m` prompts.
        requests: what to score.
        batch_size: as for `score`.
        advance: called with the number of requests just finished under one prompt, `N (m + 1)` in all.

    Returns:
        For each request `m + 1` answers, in the order of the bank, the last without a prompt.

    Raises:
        IdpError: as for `score`.

    Example:
        >>> len(score_prompts(PrefixStore(lm, bank), [request])[0]) == len(bank) + 1  # doctest: +SKIP
        True
    """
    size = batch_size if isinstance(batch_size, BatchSize) else BatchSize(batch_size)
    arms = [
        score(store, requests, [arm] * len(requests), batch_size=size, advance=advance)
        for arm in (*range(len(store)), -1)
    ]
    return [list(row) for row in zip(*arms, strict=True)]


class _Board:
    """Where the scores of all options are entered, batch by batch."""

    def __init__(self, requests: Sequence[Request], advance: Callable[[int], None] | None) -> None:
        self._scores = [[Score(0.0, True)] * len(request.continuations) for request in requests]
        self._seconds = [0.0] * len(requests)
        self._missing = [max(1, len(request.continuations)) for request in requests]
        self._advance = advance or (lambda count: None)

    def enter(self, jobs: list[Job], scores: list[list[Score]], seconds: float) -> None:
        finished = 0
        for job, row in zip(jobs, scores, strict=True):
            self._scores[job.number][job.first : job.first + len(row)] = row
            self._seconds[job.number] += seconds / len(jobs)
            self._missing[job.number] -= max(1, len(row))
            finished += self._missing[job.number] == 0
        self._advance(finished)

    def answers(self) -> list[Scored]:
        return [Scored(tuple(scores), spent) for scores, spent in zip(self._scores, self._seconds, strict=True)]


def _check(store: PrefixStore, requests: Sequence[Request], choices: Sequence[int]) -> None:
    if len(choices) != len(requests):
        raise TaskError(f"{len(requests)} requests were given with {len(choices)} choices of a prompt; give one each.")
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


def _jobs(store: PrefixStore, requests: Sequence[Request], choices: Sequence[int], beside: int) -> dict[Way, list[Job]]:
    """Make the rows, those that hold all options of a request and those of one option each, the longest first."""
    way = way_of(store.lm)
    room = reach(store.lm, way) - beside
    jobs: dict[Way, list[Job]] = {way: [], "plain": []}
    for number, (request, choice) in enumerate(zip(requests, choices, strict=True)):
        first = 0
        for part in parts_of(request.continuations) or [()]:
            row = Job(number, first, Request(request.context, part), choice)
            if row.request.packed_length <= room:
                jobs[way].append(row)
            else:
                jobs["plain"].extend(_one_by_one(row))
            first += len(part)
    for rows in jobs.values():
        rows.sort(key=lambda job: (-_length(job), len(job.request.context), job.number, job.first))
    return jobs


def _one_by_one(job: Job) -> list[Job]:
    """Make a job of each option; a request without any is a job too, so that it is counted as done."""
    if len(job.request.continuations) < 2:
        return [job]
    return [
        Job(job.number, job.first + place, Request(job.request.context, (option,)), job.choice)
        for place, option in enumerate(job.request.continuations)
    ]


def _length(job: Job) -> int:
    return job.request.packed_length


@torch.no_grad()
def _score_batch(store: PrefixStore, batch: list[Job], way: Way) -> list[list[Score]]:
    """Run one batch; returns the scores of each row's options."""
    layout = lay_out([job.request for job in batch], store.lm.pad_token_id)
    flat = iter(_read(PASSES[way](store, batch, layout), layout, store.lm))
    return [[next(flat) for _ in job.request.continuations] for job in batch]


def _read(states: Tensor, layout: Layout, lm: LanguageModel) -> list[Score]:
    """Read the scores of all options of a batch off the states `(P, d)` that predict their tokens."""
    device = states.device
    sources, targets, owners = (tensor.to(device) for tensor in (layout.sources, layout.targets, layout.owners))
    total = torch.zeros(layout.num_options, dtype=torch.float64, device=device)
    misses = torch.zeros(layout.num_options, dtype=torch.long, device=device)
    for part, logits in readout(lm).logits(states):  # (p, V)
        here = ((sources >= part.start) & (sources < part.stop)).nonzero()[:, 0]
        rows, wanted = sources[here] - part.start, targets[here]
        chosen = logits[rows, wanted]  # (n,) before the next line overwrites them
        best, norms = _best_and_norm(logits)
        total.index_add_(0, owners[here], (chosen - norms[rows]).double())
        misses.index_add_(0, owners[here], (best[rows] != wanted).long())
    if torch.isnan(total).any():
        raise broken_numbers(lm, "NaN instead of probabilities")
    return [Score(value, miss == 0) for value, miss in zip(total.tolist(), misses.tolist(), strict=True)]


def _best_and_norm(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The first choice and the log of the softmax's denominator of each row: `(p, V)`, overwritten, to `(p,)` twice."""
    highest, best = logits.max(-1)
    return best, logits.sub_(highest[:, None]).exp_().sum(-1).log_() + highest
