from __future__ import annotations

import numpy as np
import pytest
from noisy_arms import noisy

from idp.stats.gap import gap_recovered, gap_size
from idp.stats.resampling import bootstrap_means, mean


def gaps(dense, compressed, arm, count=200):
    arms = {
        name: {"t": values}
        for name, values in (("dense", dense), ("compressed", compressed), ("router", arm))
        if len(values) == count
    }
    boot = bootstrap_means(arms)
    means = {name: mean(items) for name, items in arms.items()}
    return {name: gap_recovered(name, means, boot) for name in arms}


def test_the_gap_of_dense_is_one_of_compressed_nought_and_of_the_middle_a_half():
    dense, compressed = np.repeat([1.0, 0.0], [160, 40]), np.repeat([1.0, 0.0], [120, 80])
    found = gaps(dense, compressed, np.repeat([1.0, 0.0], [140, 60]))
    assert (found["dense"].value, found["dense"].low, found["dense"].high) == (1.0, 1.0, 1.0)
    assert (found["compressed"].value, found["compressed"].low, found["compressed"].high) == (0.0, 0.0, 0.0)
    assert found["router"].value == pytest.approx(0.5)
    assert 0 < found["router"].low < 0.5 < found["router"].high < 1


def test_a_worse_arm_has_a_negative_gap_and_a_better_one_more_than_one():
    dense, compressed = np.repeat([1.0, 0.0], [160, 40]), np.repeat([1.0, 0.0], [120, 80])
    assert gaps(dense, compressed, np.repeat([1.0, 0.0], [100, 100]))["router"].value == pytest.approx(-0.5)
    assert gaps(dense, compressed, np.ones(200))["router"].value == pytest.approx(2.0)


def test_without_a_gap_nothing_can_be_recovered():
    same = noisy(200, 0.5, 0)
    found = gaps(same, same, noisy(200, 0.6, 1))["router"]
    assert np.isnan([found.value, found.low, found.high]).all()


def test_a_gap_that_may_be_none_has_no_share():
    """Two items of two hundred: the interval of the gap touches nought."""
    dense, compressed = np.repeat([1.0, 0.0], [121, 79]), np.repeat([1.0, 0.0], [119, 81])
    arms = {"dense": {"t": dense}, "compressed": {"t": compressed}}
    size = gap_size({"dense": dense.mean(), "compressed": compressed.mean()}, bootstrap_means(arms))
    assert size.value == pytest.approx(0.01) and size.low == 0 and size.touches_zero
    assert np.isnan(gaps(dense, compressed, np.ones(200))["router"].value)


def test_a_gap_the_other_way_round_has_shares_too():
    """As of losses, which a repair makes smaller."""
    dense, compressed = np.repeat([1.0, 0.0], [100, 100]), np.repeat([1.0, 0.0], [150, 50])
    assert gaps(dense, compressed, np.repeat([1.0, 0.0], [125, 75]))["router"].value == pytest.approx(0.5)
