from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idp.errors import TaskError
from idp.tune.plan import Plan

SCHEDULES = ["cosine", "linear", "constant"]


@given(
    steps=st.integers(1, 500), peak=st.floats(1e-5, 1.0), schedule=st.sampled_from(SCHEDULES), warmup=st.floats(0, 30)
)
def test_the_rate_rises_then_falls_and_keeps_its_bounds(steps, peak, schedule, warmup):
    plan = Plan(steps, peak, schedule=schedule, warmup=warmup)
    rates = [plan.rate(step) for step in range(steps)]
    top = rates.index(max(rates))
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)
    assert max(rates) == pytest.approx(peak)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_schedules_by_hand():
    assert [round(Plan(100, 1.0).rate(step), 2) for step in (0, 4, 5, 52, 99)] == [0.2, 1.0, 1.0, 0.51, 0.0]
    linear = Plan(100, 1.0, schedule="linear", warmup=50)
    assert [round(linear.rate(step), 2) for step in (0, 49, 50, 75)] == [0.02, 1.0, 1.0, 0.5]
    assert Plan(100, 1.0, schedule="constant").rate(99) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": -1},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"patience": -1},
        {"measurements": 0},
        {"rows_at_once": -1},
        {"weight_decay": -0.1},
        {"clip": float("inf")},
        {"warmup": -1.0},
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(TaskError, match="cannot tune"):
        Plan(**({"steps": 1} | wrong))


@pytest.mark.parametrize("wrong", [{"optimizer": "adamv"}, {"schedule": "cosin"}])
def test_unknown_names_are_refused(wrong):
    with pytest.raises(TaskError, match="Did you mean"):
        Plan(1, **wrong)
