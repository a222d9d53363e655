"""Names and numbers as they are written in tables."""

from __future__ import annotations

import math

from idp.stats.resampling import Interval

__all__ = ["arm_title", "interval", "measure", "p_text", "percent", "points"]


def arm_title(name: str) -> str:
    """What an arm is called in tables."""
    return f"{name} (bound)" if name == "oracle" else name


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as percent, a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else _number(100 * value, f".{digits}f")


def measure(value: float | None, higher_is_better: bool) -> str:
    """A task's judged metric: shares as percent, anything else, such as a perplexity, as it is.

    Example:
        >>> measure(0.5, True), measure(3.1729, False), measure(123456.7, False), measure(None, True)
        ('50.0', '3.17', '1.23e+05', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    if higher_is_better and abs(value) <= 1:
        return percent(value)
    return f"{value:.2f}" if abs(value) < 10_000 else f"{value:.2e}"


def interval(gap: Interval | None) -> str:
    """A share with its interval, such as ``54 % [41, 66]``, a dash where there is none."""
    if gap is None or not math.isfinite(gap.value):
        return "-"
    value, low, high = (_number(100 * each, ".0f") for each in (gap.value, gap.low, gap.high))
    return f"{value} % [{low}, {high}]"


def points(difference: Interval) -> str:
    """A difference in points with its interval, such as ``+1.20 [+0.30, +2.10]``, if one is known."""
    if not math.isfinite(difference.low):
        return _number(100 * difference.value, "+.2f")
    value, low, high = (_number(100 * each, "+.2f") for each in (difference.value, difference.low, difference.high))
    return f"{value} [{low}, {high}]"


def p_text(p: float | None) -> str:
    """A p-value as far as the permutations resolve it, a dash where there is none."""
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _number(value: float, form: str) -> str:
    """A number, without a sign where it is rounded to nought."""
    text = format(value, form)
    return text if float(text) else text.lstrip("+-")
