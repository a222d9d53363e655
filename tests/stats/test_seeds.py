from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from idp.errors import TaskError
from idp.stats.seeds import across_seeds


def runs_of(rng, seeds, *, between=0.0, items=0.0, noise=0.0, truth=0.0, sizes=(80, 40)):
    """Differences with known parts: `seeds` runs of two tasks."""
    of_seed = rng.normal(0, between, seeds) if between else np.zeros(seeds)
    tasks = {f"t{n}": rng.normal(0, items, n) if items else np.zeros(n) for n in sizes}
    return [
        {task: truth + own + values + rng.normal(0, noise, len(values)) for task, values in tasks.items()}
        for own in of_seed
    ]


def test_runs_that_are_alike_have_the_interval_of_their_items():
    items = {"t": np.random.default_rng(0).normal(0.1, 1, 400)}
    found = across_seeds([items, items, items])
    half = student.ppf(0.975, 399) * items["t"].std(ddof=1) / 20
    assert found.spread == 0.0 and found.runs == 3
    assert [found.difference.low, found.difference.high] == pytest.approx(
        [items["t"].mean() + s * half for s in (-1, 1)]
    )


def test_items_that_are_alike_have_the_interval_of_their_seeds():
    values = np.array([0.00, 0.04, 0.02, 0.06])
    found = across_seeds([{"t": np.full(50, value), "u": np.full(9, value)} for value in values])
    half = student.ppf(0.975, 3) * values.std(ddof=1) / 2
    assert found.spread == pytest.approx(values.std(ddof=1))
    assert [found.difference.low, found.difference.high] == pytest.approx([0.03 - half, 0.03 + half])


def test_every_task_counts_the_same():
    found = across_seeds([{"large": np.ones(100), "small": np.zeros(2)}] * 2)
    assert found.difference.value == 0.5


@pytest.mark.parametrize(
    "parts",
    [
        {"between": 0.05, "items": 0.4, "noise": 0.5},
        {"between": 0.2, "items": 0.1, "noise": 0.1},
        {"items": 0.5, "noise": 0.3},
        {"noise": 1.0},
    ],
    ids=["all", "seeds", "items", "noise"],
)
def test_intervals_cover_the_truth_whatever_makes_runs_differ(parts):
    """They may cover too much where a part is nought, which cannot be told from one that is small."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(500):
        found = across_seeds(runs_of(rng, 5, truth=0.3, **parts)).difference
        covered.append(found.low <= 0.3 <= found.high)
    assert 0.93 <= np.mean(covered) <= (0.97 if parts.get("between") else 1.0)


def test_the_spread_is_that_between_seeds():
    rng = np.random.default_rng(0)
    found = [across_seeds(runs_of(rng, 8, between=0.2, items=0.5, noise=0.5)).spread for _ in range(200)]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(0.2, rel=0.1)


def test_nothing_that_differs_is_nought():
    found = across_seeds([{"t": np.zeros(5)}] * 2)
    assert (found.difference.value, found.difference.low, found.difference.high, found.spread) == (0, 0, 0, 0)


@pytest.mark.parametrize("runs", [[], [{"t": np.zeros(3)}]])
def test_one_run_has_no_seeds_to_compare(runs):
    with pytest.raises(TaskError, match="two runs or more"):
        across_seeds(runs)


@pytest.mark.parametrize("other", [{"t": np.zeros(4)}, {"u": np.zeros(3)}, {}])
def test_runs_on_different_items_are_refused(other):
    with pytest.raises(TaskError, match="the same items only"):
        across_seeds([{"t": np.zeros(3)}, other])


def test_a_single_item_says_nothing_of_others():
    with pytest.raises(TaskError, match="two items a task or more"):
        across_seeds([{"t": np.zeros(1)}] * 2)
