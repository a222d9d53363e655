"""Is a difference between two arms real? Paired statistics over the same items, task by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import permutation_test

from idp.errors import TaskError

Array: TypeAlias = npt.NDArray[np.float64]
Items: TypeAlias = Mapping[str, Array]
"""Task -> metric of each item, in the same order for every arm."""

RESAMPLES = 2000
PERMUTATIONS = 9999


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """Mean of `a` minus mean of `b`, its 95 % interval, and the two-sided p of no difference."""

    a: str
    b: str
    difference: Interval
    p: float


def mean(items: Items) -> float:
    """Mean over tasks of the mean over items: every task counts the same."""
    return float(np.mean([values.mean() for values in items.values()]))


def bootstrap_means(arms: Mapping[str, Items], seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Array]:
    """Means of all arms on the same resampled items, items drawn with replacement within each task.

    Args:
        arms: items of each arm; the same tasks and items for all.
        seed: of the resampling.
        resamples: number of resamples `R`.

    Returns:
        For each arm `(R,)` means; entry `r` of every arm comes from the same items, so differences are paired.

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
            sums[name] += items[task][drawn].mean(axis=1)
    return {name: total / len(tasks) for name, total in sums.items()}


def _check_paired(arms: Mapping[str, Items]) -> None:
    sizes = {name: {task: len(values) for task, values in items.items()} for name, items in arms.items()}
    first = next(iter(sizes.values()), {})
    if not first or any(size != first for size in sizes.values()):
        raise TaskError(f"arms can be compared on the same items only, but they were run on {sizes}.")


def gap_recovered(arm: str, means: Mapping[str, float], boot: Mapping[str, Array]) -> Interval:
    """Share of the gap between compressed and dense that an arm closes: `(arm - compressed) / (dense - compressed)`."""

    def share(values: Mapping[str, Array]) -> Array:
        gap = values["dense"] - values["compressed"]
        shares: Array = (values[arm] - values["compressed"]) / np.where(gap == 0, np.nan, gap)
        return shares

    value = share({name: np.asarray(mean) for name, mean in means.items()})
    low, high = np.nanpercentile(share(boot), [2.5, 97.5]) if np.isfinite(value) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))


def compare(a: str, b: str, arms: Mapping[str, Items], boot: Mapping[str, Array], seed: int = 0) -> Paired:
    """Paired difference of two arms: bootstrap interval and the p of a sign-flip permutation test.

    Under the null hypothesis the two arms' results on an item may be swapped; items are weighted so that every task
    counts the same. Random flips, exact in expectation (Fisher 1935; scipy's ``permutation_type="samples"``).
    """
    low, high = np.percentile(boot[a] - boot[b], [2.5, 97.5])
    difference = Interval(mean(arms[a]) - mean(arms[b]), float(low), float(high))
    return Paired(a, b, difference, _p_value(_weighted_differences(arms[a], arms[b]), seed))


def _weighted_differences(a: Items, b: Items) -> Array:
    """Each item's difference over its task's size: their sum is the difference of means, times the number of tasks."""
    return np.concatenate([(a[task] - b[task]) / len(a[task]) for task in a])


def _p_value(differences: Array, seed: int) -> float:
    kept = differences[differences != 0]  # flipping the sign of a zero changes nothing
    if not len(kept):
        return 1.0
    if len(kept) == 1:
        kept = np.append(kept, 0.0)  # scipy wants two observations
    result = permutation_test(
        (kept,),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=500,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def detectable(a: Items, b: Items) -> float:
    """The smallest true difference of two arms like these that a test at 5 % finds with 80 % power."""
    variance = np.sum([((a[task] - b[task]).var() / len(a[task])) for task in a]) / len(a) ** 2
    return float((1.96 + 0.84) * np.sqrt(variance))
