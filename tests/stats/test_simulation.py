"""Studies with known truth: how often tests and intervals are right."""

from __future__ import annotations

import numpy as np
import pytest

from idp.stats.gap import gap_recovered, gap_size
from idp.stats.pairs import compare
from idp.stats.power import detectable
from idp.stats.resampling import bootstrap_means, mean

RUNS = 1000
ITEMS = {"easy": 250, "hard": 150, "short": 100}
RIGHT = {"easy": 0.8, "hard": 0.5, "short": 0.3}
"""How many items each task has, and what share of them the worse arm has right."""


def study(rng, gains, shared=0.7):
    """Arms that are better than the first by known gains; most of what makes an item hard is common to all."""
    arms = {name: {} for name in gains}
    for task, count in ITEMS.items():
        common, alike = rng.random(count), rng.random(count) < shared
        for name, gain in gains.items():
            luck = np.where(alike, common, rng.random(count))
            arms[name][task] = (luck < RIGHT[task] + gain).astype(np.float64)
    return arms


@pytest.fixture(scope="module")
def without_effect():
    """Two arms that are equally good, a thousand times over."""
    rng = np.random.default_rng(1)
    found = []
    for run in range(RUNS):
        arms = study(rng, {"a": 0.0, "b": 0.0})
        found.append(compare("a", "b", arms, bootstrap_means(arms, run, resamples=400), run))
    return found


@pytest.mark.slow
def test_arms_without_an_effect_are_called_different_at_the_nominal_rate(without_effect):
    """Three standard errors of 5 % in 1,000 runs are 2.1 points; McNemar's test is exact, so it may err below."""
    assert np.mean([each.p < 0.05 for each in without_effect]) == pytest.approx(0.05, abs=0.021)
    assert 0.02 < np.mean([each.mcnemar < 0.05 for each in without_effect]) < 0.071


@pytest.mark.slow
def test_intervals_cover_a_difference_of_nought(without_effect):
    covered = [each.difference.low <= 0 <= each.difference.high for each in without_effect]
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.slow
def test_known_effects_are_covered_and_found_with_the_stated_power():
    rng = np.random.default_rng(2)
    pilot = study(rng, {"a": 0.0, "b": 0.0})
    effect = detectable(pilot["a"], pilot["b"])
    covered, significant = [], []
    for run in range(RUNS):
        arms = study(rng, {"a": effect, "b": 0.0})
        found = compare("a", "b", arms, bootstrap_means(arms, run, resamples=400), run)
        covered.append(found.difference.low <= effect <= found.difference.high)
        significant.append(found.p < 0.05)
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(significant) == pytest.approx(0.8, abs=0.06)


@pytest.mark.slow
def test_shares_of_a_gap_are_covered():
    """An arm that gives back 60 % of 15 points."""
    rng = np.random.default_rng(3)
    covered = []
    for run in range(RUNS):
        arms = study(rng, {"dense": 0.15, "compressed": 0.0, "arm": 0.09})
        boot, means = bootstrap_means(arms, run, resamples=400), {name: mean(items) for name, items in arms.items()}
        size, share = gap_size(means, boot), gap_recovered("arm", means, boot)
        covered.append((size.low <= 0.15 <= size.high, share.low <= 0.6 <= share.high))
    gaps, shares = np.mean(covered, axis=0)
    assert 0.93 <= gaps <= 0.97
    assert 0.93 <= shares <= 0.97
