"""Whether this process was started together with others, as `accelerate launch` and `torchrun` do; needs no torch."""

from __future__ import annotations

import os

__all__ = ["rank", "world_size"]

_RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")  # torchrun, then launchers of MPI
_WORLD_SIZE = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def rank() -> int:
    """Which of the processes this is, from 0."""
    return _first(_RANK, 0)


def world_size() -> int:
    """How many processes were started together; 1 where this one was started alone."""
    return _first(_WORLD_SIZE, 1)


def _first(names: tuple[str, ...], default: int) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), default)
