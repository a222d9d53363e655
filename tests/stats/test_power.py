from __future__ import annotations

import numpy as np
import pytest

from idp.stats.power import detectable


def test_detectable_difference_by_hand():
    a, b = np.array([1.0, 0.0] * 50), np.zeros(100)
    assert detectable({"t": a}, {"t": b}) == pytest.approx(2.8 * 0.5 / 10)
    four = {f"t{i}": a for i in range(4)}, {f"t{i}": b for i in range(4)}
    assert detectable(*four) == pytest.approx(2.8 * 0.5 / 10 / 2)
    assert detectable({"t": a}, {"t": a}) == 0.0
