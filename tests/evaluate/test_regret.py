from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idp.errors import TaskError
from idp.evaluate.regret import Choices, Measured, Outcomes, regrets
from idp.select.base import Cost

COST = Cost(forwards=0.0, parameters=3, labels=True, answers=False)
LOSSES = {
    "easy": np.array([[0.1, 0.9, 0.5], [0.8, 0.2, 0.5], [0.6, 0.6, 0.4]]),
    "text": np.array([[0.5, 0.4, 0.9], [0.5, 0.4, 0.9]]),
}
VALUES = {"easy": np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])}
OUTCOMES = Outcomes(("a", "b", "no prompt"), LOSSES, VALUES)
STATIC = Choices("static", {"easy": np.array([0, 0, 0]), "text": np.array([0, 0])}, COST, 0.0, 0.0)
BEST = Choices("best", {"easy": np.array([0, 1, 2]), "text": np.array([1, 1])}, COST, 0.001, 0.002)
NONE = Choices("none", {"easy": np.array([2, 2, 2]), "text": np.array([2, 2])}, COST, 0.0, 0.0)


def test_rows_worked_out_by_hand():
    static, best, none = regrets(OUTCOMES, [STATIC, BEST, NONE])
    assert static.mean == pytest.approx(1 / 3) and best.mean == 1.0 and none.mean == pytest.approx(2 / 3)
    assert static.loss == pytest.approx((0.5 + 0.5) / 2)
    bound = ((0.1 + 0.2 + 0.4) / 3 + 0.4) / 2
    assert best.loss == pytest.approx(bound) and best.regret.value == pytest.approx(0.0)
    assert static.regret.value == pytest.approx(0.5 - bound)
    assert static.covered.value == 0.0 and best.covered.value == pytest.approx(1.0)
    assert none.covered.value < 0
    assert static.gain is None and static.gain_of_loss is None
    assert best.gain.difference.value == pytest.approx(2 / 3)
    assert best.gain_of_loss.difference.value == pytest.approx(0.5 - bound)  # what it is below static
    assert static.agreement == pytest.approx((1 / 3 + 0) / 2)
    assert best.agreement == 1.0
    assert best.histogram["easy"] == pytest.approx({"a": 1 / 3, "b": 1 / 3, "no prompt": 1 / 3})
    assert none.histogram == {"easy": {"no prompt": 1.0}, "text": {"no prompt": 1.0}}


def test_rows_are_json_and_what_cannot_be_stated_is_null():
    flat = Outcomes(("a", "no prompt"), {"easy": np.full((3, 2), 0.5)}, {})
    [row] = regrets(flat, [Choices("static", {"easy": np.zeros(3)}, COST, 0.0, 0.0)])
    said = json.loads(json.dumps(row.to_dict(), allow_nan=False))
    assert said["covered"] is None and said["mean"] is None and said["gain_over_static"] is None
    assert said["regret"]["value"] == 0.0
    assert (said["forwards"], said["parameters"], said["needs_labels"], said["sees_answers"]) == (0, 3, True, False)


@given(st.integers(0, 10_000), st.integers(2, 5))
def test_nobody_beats_the_bound(seed, arms):
    rng = np.random.default_rng(seed)
    losses = {task: rng.random((rng.integers(2, 9), arms)) for task in ("x", "y")}
    outcomes = Outcomes(tuple(map(str, range(arms))), losses, {})
    picked = {task: rng.integers(arms, size=len(table)) for task, table in losses.items()}
    static = Choices("static", {task: np.zeros(len(table)) for task, table in losses.items()}, COST, 0.0, 0.0)
    for row in regrets(outcomes, [static, Choices("any", picked, COST, 0.0, 0.0)]):
        assert row.regret.value >= -1e-12 and row.regret.low >= -1e-12
        assert 0 <= row.agreement <= 1
        assert all(sum(shares.values()) == pytest.approx(1) for shares in row.histogram.values())


def test_static_has_to_be_there_and_all_items_chosen_for():
    with pytest.raises(TaskError, match="compared with 'static'"):
        regrets(OUTCOMES, [BEST])
    short = Choices("short", {"easy": np.array([0]), "text": np.array([0, 0])}, COST, 0.0, 0.0)
    with pytest.raises(TaskError, match="choices for 1 items of easy, which has 3"):
        regrets(OUTCOMES, [STATIC, short])


def _measured(easy, text):
    losses = {"easy": np.array(easy), "text": np.array(text)}
    return Measured("mix", losses, {"easy": np.array([1.0, 0.5, 1.0])}, COST, 0.001, 0.002)


def test_what_is_no_choice_is_judged_by_what_came_of_it_and_may_beat_the_bound():
    _, mixed = regrets(OUTCOMES, [STATIC, _measured([0.0, 0.1, 0.2], [0.3, 0.3])])
    bound = ((0.1 + 0.2 + 0.4) / 3 + 0.4) / 2
    assert mixed.loss == pytest.approx(0.2) and mixed.mean == pytest.approx(2.5 / 3)
    assert mixed.regret.value == pytest.approx(0.2 - bound) and mixed.regret.value < 0
    assert mixed.covered.value > 1
    assert mixed.gain.difference.value == pytest.approx(2.5 / 3 - 1 / 3)
    assert mixed.agreement is None and mixed.histogram == {}
    said = json.loads(json.dumps(mixed.to_dict(), allow_nan=False))
    assert said["agreement"] is None and said["choices"] == {}


def test_a_measurement_of_other_items_is_refused():
    with pytest.raises(TaskError, match="losses of 2 items of easy, which has 3"):
        regrets(OUTCOMES, [STATIC, _measured([0.0, 0.1], [0.3, 0.3])])
