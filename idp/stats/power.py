"""What this many items could have found."""

from __future__ import annotations

import numpy as np

from idp.stats.resampling import Items

__all__ = ["detectable"]


def detectable(a: Items, b: Items) -> float:
    """The smallest true difference of two arms like these that a test at 5 % finds with 80 % power."""
    variance = np.sum([((a[task] - b[task]).var() / len(a[task])) for task in a]) / len(a) ** 2
    return float((1.96 + 0.84) * np.sqrt(variance))
