"""Several runs of one comparison that differ in their seeds: the seed as a random effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from idp.errors import TaskError
from idp.stats.resampling import Array, Interval, Items, mean

__all__ = ["AcrossSeeds", "across_seeds"]


@dataclass(frozen=True)
class AcrossSeeds:
    """A difference over several seeds.

    Attributes:
        difference: its mean, with a 95 % interval for seeds and items other than these.
        spread: standard deviation between seeds, beyond what items explain.
        runs: how many there were.
    """

    difference: Interval
    spread: float
    runs: int


def across_seeds(runs: Sequence[Items]) -> AcrossSeeds:
    """Combine the differences that several seeds made on the same items.

    Seeds and items are crossed random effects, items within tasks that weigh the same. With `k` seeds, the variance of
    the mean is that of the seeds' means over `k`, plus that of the items' means, less the part of both that is the one
    of single results; the interval is Student's with Satterthwaite's degrees of freedom.

    Args:
        runs: of each run the difference of two arms on every item; the same tasks and items in all.

    Raises:
        TaskError: less than two runs, runs on different items, or a task of a single item.

    Example:
        >>> one, other = {"t": np.array([0.0, 1.0])}, {"t": np.array([1.0, 1.0])}
        >>> across_seeds([one, other]).difference.value
        0.75
    """
    _check(runs)
    tables = {task: np.stack([run[task] for run in runs]) for task in runs[0]}  # task -> (k, n)
    means = np.array([mean(run) for run in runs])  # (k,)
    of_seeds = means.var(ddof=1) / len(runs)
    of_items, of_results = _of_items(tables), _of_results(tables)
    variance = max(of_seeds + of_items - of_results, of_seeds, of_items)
    freedom = _freedom(
        variance, of_seeds, len(runs) - 1, of_items, sum(table.shape[1] - 1 for table in tables.values())
    )
    half = float(student.ppf(0.975, freedom) * np.sqrt(variance)) if variance else 0.0
    value = float(means.mean())
    spread = float(np.sqrt(max(0.0, len(runs) * (of_seeds - of_results))))
    return AcrossSeeds(Interval(value, value - half, value + half), spread, len(runs))


def _check(runs: Sequence[Items]) -> None:
    if len(runs) < 2:
        raise TaskError(f"seeds are compared over two runs or more, not {len(runs)}.")
    sizes = [{task: len(values) for task, values in run.items()} for run in runs]
    if any(size != sizes[0] for size in sizes) or not sizes[0]:
        raise TaskError(f"seeds can be compared on the same items only, but runs were on {sizes}.")
    if min(sizes[0].values()) < 2:
        raise TaskError(f"seeds are compared on two items a task or more, but runs were on {sizes[0]}.")


def _of_items(tables: Mapping[str, Array]) -> float:
    """Variance of the mean by the choice of items: of a task that of the items' means over seeds, over their number."""
    return float(sum(table.mean(axis=0).var(ddof=1) / table.shape[1] for table in tables.values())) / len(tables) ** 2


def _of_results(tables: Mapping[str, Array]) -> float:
    """Variance of the mean by single results, what seeds and items leave unexplained."""
    return float(sum(_residual(table) / table.size for table in tables.values())) / len(tables) ** 2


def _residual(table: Array) -> float:
    """Mean square that a seed's and an item's mean leave of a table `(k, n)`."""
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float((rest**2).sum() / ((table.shape[0] - 1) * (table.shape[1] - 1)))


def _freedom(variance: float, of_seeds: float, seeds: int, of_items: float, items: int) -> float:
    """Satterthwaite's degrees of freedom of a variance made of two."""
    parts = of_seeds**2 / seeds + of_items**2 / items
    return variance**2 / parts if parts else float(seeds)
