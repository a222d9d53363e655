"""The scores of all arms for one input, made when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TypeAlias, overload

import numpy as np
import numpy.typing as npt

__all__ = ["Scores"]

Row: TypeAlias = npt.NDArray[np.floating]


class Scores(Sequence[float]):
    """A sequence of floats like a tuple, kept as a row of an array or as what makes one.

    A tuple of the scores of 100,000 prompts would take longer than choosing among them. It equals a tuple of the same
    numbers, and is printed as one.

    Args:
        count: how many there are, `m + 1`.
        row: makes them, `(count,)`; it is called at most once.

    Example:
        >>> scores = Scores(2, lambda: np.array([0.25, 0.75]))
        >>> scores[-1], len(scores), scores == (0.25, 0.75)
        (0.75, 2, True)
    """

    def __init__(self, count: int, row: Callable[[], Row]) -> None:
        """Make nothing yet."""
        self._count = count
        self._make = row

    @cached_property
    def _row(self) -> Row:
        return self._make()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> float: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[float, ...]: ...

    def __getitem__(self, index: int | slice) -> float | tuple[float, ...]:
        return tuple(self._row[index].tolist()) if isinstance(index, slice) else float(self._row[index])

    def __iter__(self) -> Iterator[float]:
        return iter(self._row.tolist())

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Scores | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __reduce__(self) -> tuple[type[tuple[float, ...]], tuple[tuple[float, ...]]]:
        """Go to another process, or to a copy, as the tuple that it equals."""
        return tuple, (tuple(self),)
