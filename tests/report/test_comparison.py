from __future__ import annotations

import pytest
from made_runs import MODEL

from idp.errors import TaskError
from idp.report.comparison import check_same_items, labels, over_seeds
from idp.report.run import read_run

OTHER = {**MODEL, "name": "other", "fingerprint": {"weights": "4567"}}


@pytest.fixture
def runs(run):
    """A factory: several runs, each with options of its own."""
    return lambda *options: [read_run(run(f"run-{place}", **each)) for place, each in enumerate(options)]


def test_runs_on_the_same_items_may_be_compared(runs):
    check_same_items(runs({}, {"model": OTHER}))


def test_runs_on_other_items_are_refused_by_name(runs):
    with pytest.raises(TaskError, match=r"run-0 and .*run-1 cannot be compared: .*run-1 has other items of easy"):
        check_same_items(runs({}, {"items": " of another split"}))


def test_runs_on_other_tasks_are_refused_by_name(runs, right):
    fewer = {arm: {"easy": tasks["easy"]} for arm, tasks in right.items()}
    both, one = runs({}, {"arms": fewer})
    for order in ([both, one], [one, both]):
        with pytest.raises(TaskError, match="run-1 has no items of hard"):
            check_same_items(order)


def test_runs_are_told_apart_by_as_little_as_it_takes(runs):
    assert labels(runs({}, {"model": OTHER})) == ["tiny", "other"]


def test_runs_of_one_model_are_told_apart_by_seed_or_folder(run):
    assert labels([read_run(run("a")), read_run(run("b", seed=1))]) == ["tiny, seed 0", "tiny, seed 1"]
    assert labels([read_run(run("c")), read_run(run("d"))]) == ["tiny, c", "tiny, d"]
    assert labels([read_run(run("x/e")), read_run(run("y/e"))])[0].endswith("x/e")


def test_runs_that_differ_in_their_seeds_alone_are_put_together(runs, right):
    better = {**right, "router": {"easy": [1] * 36 + [0] * 4, "hard": right["router"]["hard"]}}
    rows = {(row.a, row.b): row.found for row in over_seeds(runs({}, {"arms": better, "seed": 1}))}
    assert set(rows) == {(arm, "compressed") for arm in ("dense", "router", "oracle")}
    found = rows["router", "compressed"]
    assert found.difference.value == pytest.approx((0.3 + 0.15 + 0.4 + 0.15) / 4) and found.runs == 2
    assert found.spread > 0 == rows["dense", "compressed"].spread


@pytest.mark.parametrize("second", [{"seed": 0}, {"seed": 1, "model": OTHER}], ids=["one seed", "another model"])
def test_other_runs_are_not_put_together(runs, second):
    assert over_seeds(runs({}, second)) == []


def test_a_single_run_has_no_seeds_to_compare(runs):
    assert over_seeds(runs({})) == []


def test_runs_without_a_mean_or_with_single_items_have_no_table_of_seeds(runs, right):
    single = {arm: {task: values[:1] for task, values in tasks.items()} for arm, tasks in right.items()}
    assert over_seeds(runs({"arms": single}, {"arms": single, "seed": 1})) == []
