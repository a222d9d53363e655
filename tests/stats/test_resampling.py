from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from noisy_arms import ITEMS, arms_of, noisy
from scipy.stats import bootstrap

from idp.errors import TaskError
from idp.stats.resampling import bootstrap_means, mean


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
