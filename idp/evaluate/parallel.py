"""Several processes with one evaluation between them, each with a model of its own (data parallelism)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from idp.errors import IdpError
from idp.launch import world_size

__all__ = ["Team", "accelerator"]

T = TypeVar("T")

_PATIENCE = timedelta(weeks=52)  # as lm-eval's own models: one process may have much more to do than another


def accelerator() -> Accelerator | None:
    """The processes that were started with this one, connected; None where it was started alone.

    The ordinary case does not touch `accelerate`, which would keep global state and choose a device.

    Raises:
        IdpError: they cannot be connected, so that each would do the whole work.
    """
    if world_size() == 1:
        return None
    on_cpu = not torch.accelerator.is_available()
    connected = Accelerator(cpu=on_cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)])
    if connected.num_processes == 1:
        raise IdpError(
            f"{world_size()} processes were started, but accelerate cannot connect them here: start one, or set "
            "ACCELERATE_USE_CPU=true."
        )
    return connected


@dataclass(frozen=True)
class Team:
    """Processes that run the same code in step: what is expensive, each computes for its share.

    All members must make the same calls in the same order.

    Attributes:
        rank: which member this process is, from 0.
        size: how many there are.
        device: where this member's models belong; None leaves it to the user.

    Example:
        >>> Team(rank=1, size=2).share("abcde")
        'bd'
        >>> Team().gather([1, 2])
        [1, 2]
    """

    rank: int = 0
    size: int = 1
    device: torch.device | None = None

    @classmethod
    def launched(cls) -> Team:
        """The processes that were started together; a team of one where this process was started alone."""
        together = accelerator()
        return cls(together.process_index, together.num_processes, together.device) if together else cls()

    @property
    def is_first(self) -> bool:
        """Whether this member is the one that reads, writes and tells."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This member's part of a list that all have: every `size`-th, so that sorted work is spread evenly."""
        return items[self.rank :: self.size]

    def gather(self, mine: list[T]) -> list[T]:
        """What all members have together, in the same order on each."""
        if self.size == 1:
            return mine
        lists: list[list[T]] = [[] for _ in range(self.size)]
        torch.distributed.all_gather_object(lists, mine)
        return list(chain.from_iterable(lists))

    def agree(self, compute: Callable[[], T]) -> T:
        """What the first member computes, for all."""
        if self.size == 1:
            return compute()
        box: list[T | None] = [compute() if self.is_first else None]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]  # None only where compute() gave it
