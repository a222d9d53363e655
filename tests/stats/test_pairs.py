from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy_arms import ITEMS, arms_of, noisy
from scipy.stats import binomtest, norm

from idp.stats.pairs import _hoeffding, compare, compare_all
from idp.stats.resampling import bootstrap_means


def difference(a, b, seed=0):
    arms = {"a": a, "b": b}
    return compare("a", "b", arms, bootstrap_means(arms, seed), seed)


@settings(max_examples=20, deadline=None)
@given(ITEMS)
def test_an_arm_does_not_differ_from_itself(rows):
    items = arms_of(rows)["router"]
    found = difference(items, items)
    assert found.p == 1.0
    assert (found.difference.value, found.difference.low, found.difference.high) == (0.0, 0.0, 0.0)


@settings(max_examples=20, deadline=None)
@given(ITEMS)
def test_swapping_two_arms_turns_the_sign(rows):
    arms = arms_of(rows)
    one, other = difference(arms["dense"], arms["router"]), difference(arms["router"], arms["dense"])
    assert one.difference.value == pytest.approx(-other.difference.value)
    assert one.p == pytest.approx(other.p)
    assert 0 < one.p <= 1


@pytest.mark.parametrize("wins, losses", [(1, 0), (2, 0), (5, 0), (6, 1), (8, 3)])
def test_few_differences_have_the_exact_p(wins, losses):
    """Counted by hand: how many of the 2^n sign flips lie as far from nought."""
    signs = [1.0] * wins + [-1.0] * losses
    a, b = np.zeros(50), np.zeros(50)
    a[:wins], b[wins : wins + losses] = 1.0, 1.0
    sums = [abs(sum(flip)) for flip in product((1, -1), repeat=len(signs))]
    exact = sum(total >= sum(signs) for total in sums) / len(sums)
    assert difference({"t": a}, {"t": b}).p == pytest.approx(exact)


def test_many_differences_have_about_the_normal_p():
    a, b = noisy(2000, 0.62, 0), noisy(2000, 0.60, 1)
    kept = (a - b)[a != b]
    expected = 2 * norm.sf(abs(kept.sum()) / np.sqrt(len(kept)))
    assert difference({"t": a}, {"t": b}).p == pytest.approx(expected, abs=0.03)


def test_a_clear_difference_is_significant_and_its_interval_excludes_nought():
    a, b = noisy(500, 0.8, 0), noisy(500, 0.6, 1)
    found = difference({"t": a}, {"t": b})
    assert found.p < 0.001
    assert found.difference.value == pytest.approx(a.mean() - b.mean())
    assert 0 < found.difference.low < found.difference.value < found.difference.high


def test_small_tasks_weigh_as_much_as_large_ones():
    """One item of ten outweighs one of a thousand, in the difference and in its p."""
    large, small = np.zeros(1000), np.zeros(10)
    better = small.copy()
    better[:6] = 1.0
    worse = large.copy()
    worse[:6] = 1.0
    found = difference({"large": large, "small": better}, {"large": worse, "small": small})
    assert found.difference.value == pytest.approx((0.6 - 0.006) / 2)
    assert found.p < 0.05
    pooled = difference({"all": np.r_[large, better]}, {"all": np.r_[worse, small]})
    assert pooled.p == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(ITEMS)
def test_mcnemar_is_the_binomial_test_of_the_items_that_differ(rows):
    arms = arms_of(rows)
    found = difference(arms["dense"], arms["router"])
    a, b = (np.concatenate([*arms[name].values()]) for name in ("dense", "router"))
    assert (found.gained, found.lost) == (((a == 1) & (b == 0)).sum(), ((a == 0) & (b == 1)).sum())
    differing = found.gained + found.lost
    assert found.mcnemar == pytest.approx(binomtest(found.gained, differing).pvalue if differing else 1.0)


def test_results_that_are_neither_right_nor_wrong_have_no_mcnemar():
    found = difference({"t": np.array([0.5, 1.0])}, {"t": np.array([0.0, 1.0])})
    assert (found.gained, found.lost, found.mcnemar) == (None, None, None)


def test_holm_corrects_for_the_number_of_pairs_by_hand():
    """The smallest of three p is taken three times, the next twice; none becomes smaller than one before it."""
    none = np.zeros(100)
    arms = {"none": none, "few": none.copy(), "some": none.copy(), "many": none.copy()}
    for name, count in (("few", 5), ("some", 6), ("many", 9)):
        arms[name][:count] = 1.0
    items = {name: {"t": values} for name, values in arms.items()}
    found = compare_all([(name, "none") for name in ("few", "some", "many")], items, bootstrap_means(items))
    assert [pair.mcnemar for pair in found] == pytest.approx([2 / 2**5, 2 / 2**6, 2 / 2**9])
    assert [pair.holm for pair in found] == pytest.approx([2 / 2**5, 2 * 2 / 2**6, 3 * 2 / 2**9])
    assert compare_all([], items, bootstrap_means(items)) == []


def test_clear_differences_stay_significant_among_many():
    arms = {f"arm-{n}": {"t": noisy(80, 0.2 if n < 11 else 1.0, n)} for n in range(23)}
    pairs = [(a, b) for place, a in enumerate(arms) for b in [*arms][:place]]
    found = compare_all(pairs, arms, bootstrap_means(arms))
    assert len(found) == 253
    apart = [pair for pair in found if abs(pair.difference.value) > 0.5]
    assert apart and all(pair.holm < 1e-6 for pair in apart)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.25, 1.0]), min_size=1, max_size=10))
def test_the_bound_is_never_below_the_p_of_all_flips(differences):
    sums = np.array(list(product((1, -1), repeat=len(differences)))) @ np.array(differences)
    exact = np.mean(np.abs(sums) >= abs(sum(differences)))
    assert _hoeffding(np.array(differences)) >= exact


def test_many_clear_differences_have_a_p_below_what_random_flips_can_tell():
    found = difference({"t": np.ones(100)}, {"t": np.zeros(100)})
    assert 0 < found.p == pytest.approx(2 * np.exp(-50))


def test_holm_takes_the_p_of_the_difference_that_is_shown():
    items = {"a": {"t": np.linspace(0.1, 1, 8)}, "b": {"t": np.zeros(8)}}
    [found] = compare_all([("a", "b")], items, bootstrap_means(items))
    assert found.mcnemar is None and found.holm == found.p == pytest.approx(2 / 2**8)
