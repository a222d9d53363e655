from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm

from idp.errors import TaskError
from idp.evaluate.stats import bootstrap_means, compare, detectable, gap_recovered, mean

ITEMS = st.lists(st.tuples(*[st.sampled_from([0.0, 1.0])] * 3), min_size=2, max_size=30)


def arms_of(rows):
    """Three arms of two tasks, from rows of three results an item."""
    table = np.array(rows, dtype=np.float64)
    return {
        name: {"one": table[:, i], "two": table[::-1, i][: max(1, len(table) // 2)]}
        for i, name in enumerate(("dense", "compressed", "router"))
    }


def noisy(count, accuracy, seed):
    return (np.random.default_rng(seed).random(count) < accuracy).astype(np.float64)


def test_the_mean_counts_every_task_the_same():
    assert mean({"large": np.array([1.0] * 30), "small": np.array([0.0, 1.0])}) == pytest.approx(0.75)


@settings(max_examples=30, deadline=None)
@given(ITEMS)
def test_bootstrap_is_paired_seeded_and_within_the_range_of_the_items(rows):
    arms = arms_of(rows)
    boot = bootstrap_means(arms, seed=1, resamples=50)
    again = bootstrap_means(arms, seed=1, resamples=50)
    for name, means in boot.items():
        assert means.shape == (50,)
        assert np.array_equal(means, again[name])
        assert (means >= 0).all() and (means <= 1).all()
    same = bootstrap_means({"a": arms["dense"], "b": arms["dense"]}, seed=1, resamples=50)
    assert np.array_equal(same["a"], same["b"])  # the same items are drawn for both
    shifted = {"a": arms["dense"], "b": {task: values + 0.25 for task, values in arms["dense"].items()}}
    boot = bootstrap_means(shifted, seed=1, resamples=50)
    assert np.allclose(boot["b"] - boot["a"], 0.25)


def test_bootstrap_agrees_with_scipy():
    a, b = noisy(300, 0.7, 0), noisy(300, 0.6, 1)
    boot = bootstrap_means({"a": {"t": a}, "b": {"t": b}}, resamples=4000)
    ours = np.percentile(boot["a"] - boot["b"], [2.5, 97.5])
    theirs = bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert ours == pytest.approx([theirs.low, theirs.high], abs=0.01)


def test_bootstrap_draws_within_each_task_so_that_a_constant_task_adds_no_spread():
    constant = bootstrap_means({"a": {"t": np.ones(5), "u": np.zeros(7)}}, resamples=100)["a"]
    assert np.all(constant == 0.5)
    spread = bootstrap_means({"a": {"t": noisy(100, 0.5, 0)}}, resamples=4000)["a"].std()
    assert spread == pytest.approx(noisy(100, 0.5, 0).std() / 10, rel=0.1)


@pytest.mark.parametrize(
    "other",
    [{"one": np.zeros(3)}, {"one": np.zeros(4), "two": np.zeros(2)}, {"two": np.zeros(4)}, {}],
    ids=["fewer items", "more tasks", "another task", "nothing"],
)
def test_arms_on_different_items_cannot_be_compared(other):
    with pytest.raises(TaskError, match="the same items only"):
        bootstrap_means({"a": {"one": np.zeros(4)}, "b": other})


def test_nothing_cannot_be_compared():
    with pytest.raises(TaskError):
        bootstrap_means({})


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


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_the_p_of_equal_arms_is_seldom_small(seed):
    found = difference({"t": noisy(300, 0.6, seed)}, {"t": noisy(300, 0.6, seed + 5000)})
    assert found.p > 1e-4


def test_detectable_difference_by_hand():
    a, b = np.array([1.0, 0.0] * 50), np.zeros(100)
    assert detectable({"t": a}, {"t": b}) == pytest.approx(2.8 * 0.5 / 10)
    four = {f"t{i}": a for i in range(4)}, {f"t{i}": b for i in range(4)}
    assert detectable(*four) == pytest.approx(2.8 * 0.5 / 10 / 2)
    assert detectable({"t": a}, {"t": a}) == 0.0
