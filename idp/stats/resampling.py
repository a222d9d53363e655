"""Items of tasks, their stratified mean, and resampling them in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from idp.errors import TaskError

__all__ = ["Array", "Interval", "Items", "bootstrap_means", "interval_of", "mean"]

Array: TypeAlias = npt.NDArray[np.float64]
Items: TypeAlias = Mapping[str, Array]
"""Task -> metric of each item, in the same order for every arm."""

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def touches_zero(self) -> bool:
        """Whether nought is within it, or may be: the ends are not known."""
        return not (self.low > 0 or self.high < 0)


def mean(items: Items) -> float:
    """Mean over tasks of the mean over items: every task counts the same."""
    return float(np.mean([values.mean() for values in items.values()]))


def interval_of(value: float, resampled: Array) -> Interval:
    """A value with the 95 % percentile interval of its resampled values, `(R,)`; NaN as far as these are."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def bootstrap_means(arms: Mapping[str, Items], seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Array]:
    """Means of all arms on the same resampled items, items drawn with replacement within each task.

    Args:
        arms: items of each arm; the same tasks and items for all.
        seed: of the resampling.
        resamples: number of resamples `R`.

    Returns:
        For each arm `(R,)` means; entry `r` of every arm comes from the same items, so differences are paired. NaN
        where a task has a single item, since nothing tells how others would do.

    Raises:
        TaskError: arms that were not run on the same items.
    """
    _check_paired(arms)
    rng = np.random.default_rng(seed)
    sums = {name: np.zeros(resamples) for name in arms}
    tasks = next(iter(arms.values()))
    for task, values in tasks.items():
        drawn = rng.integers(len(values), size=(resamples, len(values)))  # (R, n)
        for name, items in arms.items():
            sums[name] += items[task][drawn].mean(axis=1) if len(values) > 1 else np.nan
    return {name: total / len(tasks) for name, total in sums.items()}


def _check_paired(arms: Mapping[str, Items]) -> None:
    sizes = {name: {task: len(values) for task, values in items.items()} for name, items in arms.items()}
    first = next(iter(sizes.values()), {})
    if not first or any(size != first for size in sizes.values()):
        raise TaskError(f"arms can be compared on the same items only, but they were run on {sizes}.")
