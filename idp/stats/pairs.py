"""Two arms on the same items: their difference, and whether it could be chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import permutation_test

from idp.stats.resampling import Array, Interval, Items, interval_of, mean

__all__ = ["Paired", "compare", "compare_all", "holm"]

PERMUTATIONS = 9999


@dataclass(frozen=True)
class Paired:
    """Two arms on the same items.

    Attributes:
        a: an arm.
        b: the arm it is compared with.
        difference: stratified mean of `a` less that of `b`, with its 95 % interval.
        p: two-sided, of no difference of the stratified means (sign-flip permutation).
        gained: items that `a` has right and `b` wrong; None unless every item is right or wrong.
        lost: items that `b` has right and `a` wrong.
        mcnemar: two-sided p of McNemar's exact test over all items; None unless every item is right or wrong.
        holm: `p` corrected for all the pairs that it was tested with (Holm); None for a pair alone.
    """

    a: str
    b: str
    difference: Interval
    p: float
    gained: int | None = None
    lost: int | None = None
    mcnemar: float | None = None
    holm: float | None = None


def compare(a: str, b: str, arms: Mapping[str, Items], boot: Mapping[str, Array], seed: int = 0) -> Paired:
    """Compare two arms: bootstrap interval, sign-flip permutation test of the means, and McNemar's exact test.

    Under the null hypothesis the two arms' results on an item may be swapped. In the permutation test items are
    weighted so that every task counts the same; random flips, exact in expectation (Fisher 1935; scipy's
    ``permutation_type="samples"``). They cannot tell a p below 2e-4; there Hoeffding's inequality for sums of random
    signs (1963, theorem 2) bounds what all flips together would give. McNemar's test counts every item the same
    (McNemar 1947; statsmodels).

    Args:
        a: name of an arm.
        b: name of the arm it is compared with.
        arms: items of each arm.
        boot: their resampled means (`bootstrap_means`).
        seed: of the flips.
    """
    difference = interval_of(mean(arms[a]) - mean(arms[b]), boot[a] - boot[b])
    found = Paired(a, b, difference, _sign_flip(_weighted_differences(arms[a], arms[b]), seed))
    return _with_counts(found, np.concatenate([*arms[a].values()]), np.concatenate([arms[b][task] for task in arms[a]]))


def compare_all(
    pairs: Iterable[tuple[str, str]], arms: Mapping[str, Items], boot: Mapping[str, Array], seed: int = 0
) -> list[Paired]:
    """Compare pairs of arms as one family of tests, corrected for their number (Holm 1979).

    Returns:
        A row a pair, in the order given.
    """
    found = [compare(a, b, arms, boot, seed) for a, b in pairs]
    corrected = holm([each.p for each in found])
    return [replace(each, holm=p) for each, p in zip(found, corrected, strict=True)]


def _with_counts(found: Paired, a: Array, b: Array) -> Paired:
    """Add McNemar's test, where items `(n,)` are right or wrong."""
    if not np.isin(a, (0.0, 1.0)).all() or not np.isin(b, (0.0, 1.0)).all():
        return found
    from statsmodels.stats.contingency_tables import mcnemar

    gained, lost = int((a > b).sum()), int((a < b).sum())
    p = float(mcnemar([[0, gained], [lost, 0]], exact=True).pvalue) if gained + lost else 1.0
    return replace(found, gained=gained, lost=lost, mcnemar=min(p, 1.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979; statsmodels)."""
    if len(p_values) < 2:  # nothing to correct, and statsmodels collects garbage at every call, which takes its time
        return [*p_values]
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def _weighted_differences(a: Items, b: Items) -> Array:
    """Each item's difference over its task's size: their sum is the difference of means, times the number of tasks."""
    return np.concatenate([(a[task] - b[task]) / len(a[task]) for task in a])


def _sign_flip(differences: Array, seed: int) -> float:
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
    return min(float(result.pvalue), _hoeffding(kept))


def _hoeffding(differences: Array) -> float:
    """A bound on the share of all flips whose sum is as far from nought, never below it."""
    return float(2 * np.exp(-(differences.sum() ** 2) / (2 * (differences**2).sum())))
