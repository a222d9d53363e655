"""Made-up results of arms."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

ITEMS = st.lists(st.tuples(*[st.sampled_from([0.0, 1.0])] * 3), min_size=2, max_size=30)


def arms_of(rows):
    """Three arms of two tasks, from rows of three results an item."""
    table = np.array(rows, dtype=np.float64)
    return {
        name: {"one": table[:, i], "two": table[::-1, i][: max(2, len(table) // 2)]}
        for i, name in enumerate(("dense", "compressed", "router"))
    }


def noisy(count, accuracy, seed):
    return (np.random.default_rng(seed).random(count) < accuracy).astype(np.float64)
