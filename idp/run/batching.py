"""Cutting work into batches of similar length, and making them smaller when memory runs out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from idp.errors import ModelError, TaskError

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["BatchSize", "Finished", "cost_of_starting", "run_batches"]

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_TOKENS = {"cpu": 2**11}  # more gains nothing on a CPU, where running out of memory ends the process
_TOKENS_OF_ACCELERATORS = 2**16
_PADDED_SHARE = 0.03
# What could be computed in the time that a batch takes however small it is (rough): in tokens while all weights are
# read from memory, and in multiplications while a layer is called.
_READ = {"cpu": 24}
_READ_ON_ACCELERATORS = 256
_CALLED = {"cpu": 2.5e7}
_CALLED_ON_ACCELERATORS = 5e9


class BatchSize:
    """How much is run at once: so many rows, or so many tokens; less of both once memory has run out.

    Args:
        rows: most rows of a batch; None finds the size by tokens, from a number that keeps the device busy downwards.

    Attributes:
        rows: most rows of a batch, None where only tokens count.
        tokens: most tokens of a batch, padding included; None where only rows count.

    Raises:
        TaskError: less than one row.

    Example:
        >>> BatchSize(8).rows, BatchSize(None).rows
        (8, None)
    """

    def __init__(self, rows: int | None) -> None:
        """Start with what was asked for."""
        if rows is not None and not isinstance(rows, int):
            raise TaskError(f"a batch size is a number of rows, or None to find one, not {rows!r}.")
        if rows is not None and rows < 1:
            raise TaskError(f"a batch size of {rows} is not possible; give 1 or more.")
        self.rows = rows
        self.tokens: int | None = None

    def start(self, device: torch.device) -> None:
        """Begin a search where no number of rows was given."""
        if self.rows is None and self.tokens is None:
            self.tokens = _TOKENS.get(device.type, _TOKENS_OF_ACCELERATORS)

    def holds(self, rows: int, length: int) -> bool:
        """Whether so many rows of this length may be run at once; one row always may."""
        fits_rows = self.rows is None or rows <= self.rows
        fits_tokens = self.tokens is None or rows * length <= self.tokens
        return rows == 1 or (fits_rows and fits_tokens)

    def shrink(self, rows: int, length: int) -> None:
        """Run at most half of what did not fit."""
        if self.rows is not None:
            self.rows = rows // 2
        self.tokens = rows // 2 * length
        log.warning("out of memory with %d rows of %d tokens: going on with %d rows", rows, length, rows // 2)


class Finished(NamedTuple, Generic[T, R]):
    """A batch that was run.

    Attributes:
        jobs: what was in it.
        result: what running it gave.
        seconds: how long that took.
    """

    jobs: list[T]
    result: R
    seconds: float


def cost_of_starting(lm: LanguageModel) -> int:
    """How many tokens a model could read in the time that starting another batch takes.

    A rule of layers and weights and no measurement, so that the same work is always cut the same way. A small model is
    better run with much padding than in many batches.
    """
    config = lm.model.config.get_text_config()
    layers = getattr(config, "num_hidden_layers", 12)
    weights = 12 * layers * lm.hidden_size**2  # as they were before any compression
    called = layers * _CALLED.get(lm.device.type, _CALLED_ON_ACCELERATORS) / weights
    return _READ.get(lm.device.type, _READ_ON_ACCELERATORS) + int(called)


def run_batches(
    jobs: Sequence[T],
    length_of: Callable[[T], int],
    run: Callable[[list[T]], R],
    size: BatchSize,
    lm: LanguageModel,
    *,
    beside: int = 0,
) -> Iterator[Finished[T, R]]:
    """Run jobs in batches of similar length, in the given order, which has to be the longest first.

    A batch is closed when padding would cost more than starting another one. When memory runs out, the batch that did
    not fit is cut in half and run again; what was finished stays finished.

    Args:
        jobs: what to run.
        length_of: tokens of a job's row.
        run: runs one batch.
        size: how much at once; what is learned about memory is kept in it.
        lm: the model that is run.
        beside: tokens that every row has in memory beside its own: those of the longest prompt.

    Yields:
        Every batch as soon as it is done.

    Raises:
        ModelError: a single row does not fit into memory.
    """
    size.start(lm.device)
    padding = cost_of_starting(lm)
    begin = 0
    while begin < len(jobs):
        batch = _next_batch(jobs, begin, length_of, size, padding, beside)
        started = time.perf_counter()
        if (done := _run_or_none(run, batch)) is None:
            clear_device_cache()  # no collection: the frames that held tensors went with the error
            if len(batch) == 1:
                raise ModelError(
                    f"out of memory on {lm.device} with a single row of {length_of(batch[0])} tokens: shorten the "
                    "text, or use a smaller model, a smaller dtype or a device with more memory."
                )
            size.shrink(len(batch), beside + length_of(batch[0]))
            continue
        yield Finished(batch, done[0], time.perf_counter() - started)
        begin += len(batch)


def _next_batch(
    jobs: Sequence[T], begin: int, length_of: Callable[[T], int], size: BatchSize, worth: int, beside: int
) -> list[T]:
    """Take jobs as long as they fit, and padding them to the first, which is the longest, is worth it."""
    longest = length_of(jobs[begin])
    end, padding = begin + 1, 0
    while end < len(jobs) and size.holds(end - begin + 1, beside + longest):
        padding += longest - length_of(jobs[end])
        if padding > max(worth, _PADDED_SHARE * longest * (end - begin + 1)):
            break
        end += 1
    return list(jobs[begin:end])


def _run_or_none(run: Callable[[list[T]], R], batch: list[T]) -> tuple[R] | None:
    """The result of a batch, None where memory ran out; the error's frames, which hold tensors, are gone by then."""
    try:
        return (run(batch),)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not should_reduce_batch_size(error):
            raise
        return None
