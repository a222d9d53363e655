"""How much of what compression cost an arm gives back."""

from __future__ import annotations

from collections.abc import Mapping

from idp.stats.resampling import Array, Interval, interval_of

__all__ = ["gap_recovered", "gap_size"]

_UNDEFINED = Interval(float("nan"), float("nan"), float("nan"))


def gap_size(means: Mapping[str, float], boot: Mapping[str, Array]) -> Interval:
    """What compression cost: the mean of `dense` less that of `compressed`, with its paired 95 % interval."""
    return interval_of(means["dense"] - means["compressed"], boot["dense"] - boot["compressed"])


def gap_recovered(arm: str, means: Mapping[str, float], boot: Mapping[str, Array]) -> Interval:
    """Share of the gap between compressed and dense that an arm closes: `(arm - compressed) / (dense - compressed)`.

    The interval is that of the ratio over paired resamples (percentile bootstrap).

    Args:
        arm: its name.
        means: of the arm, of `dense` and of `compressed`.
        boot: their resampled means (`bootstrap_means`), `(R,)` each.

    Returns:
        The share; NaN where the interval of the gap touches nought, since it then may as well be a share of nothing. A
        gap the other way round, as of losses, has shares too; where that says that compression helped, none is stated.
    """
    if gap_size(means, boot).touches_zero:
        return _UNDEFINED
    gaps = boot["dense"] - boot["compressed"]  # (R,)
    value = (means[arm] - means["compressed"]) / (means["dense"] - means["compressed"])
    # A few in a hundred resamples at most have no gap; they are left out of the percentiles.
    return interval_of(value, ((boot[arm] - boot["compressed"])[gaps != 0] / gaps[gaps != 0]))
