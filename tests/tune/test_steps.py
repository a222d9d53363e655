from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.tune import steps
from idp.tune.plan import Plan
from idp.tune.steps import drawn, drive, judges, mean_loss, written


class Counting:
    """A run that counts what is asked of it."""

    def __init__(self, stop=10**9):
        self.step, self.stop, self.points = 0, stop, []

    @property
    def finished(self):
        return self.step >= self.stop

    @property
    def losses(self):
        return 0.0, float(self.points[-1])

    def update(self):
        self.step += 1

    def measure(self):
        self.points.append(self.step)

    def state(self):
        return {"step": torch.tensor(self.step), "points": torch.tensor(self.points)}

    def restore(self, tensors):
        self.step, self.points = int(tensors["step"]), tensors["points"].tolist()

    def key(self):
        return "counting"


@given(steps_=st.integers(0, 200))
def test_a_run_is_measured_before_the_first_update_and_after_the_last(steps_):
    run, done, watched = Counting(), [], []
    drive(run, Plan(steps_), advance=done.append, watch=lambda _, held_out: watched.append(held_out), weight=3)
    assert run.step == steps_
    assert run.points[0] == 0
    assert run.points[-1] == steps_
    assert run.points == sorted(set(run.points))
    assert len(run.points) <= 11
    assert sum(done) == 3 * steps_
    assert watched == run.points


def test_a_run_that_is_finished_early_counts_as_done(tmp_path):
    run, done = Counting(stop=7), []
    drive(run, Plan(20), tmp_path / "run", done.append)
    assert run.step == 7
    assert sum(done) == 20
    again = Counting(stop=7)
    drive(again, Plan(20), tmp_path / "run")
    assert (again.step, again.points) == (run.step, run.points)


@pytest.mark.parametrize("stop", [1, 4, 19])
def test_a_run_goes_on_where_it_was_cut_off(tmp_path, monkeypatch, stop):
    monkeypatch.setattr(steps, "SAVE_EVERY", 1)
    whole = Counting()
    drive(whole, Plan(20))

    def cut(count):
        if run.step == stop:
            raise KeyboardInterrupt

    run = Counting()
    with pytest.raises(KeyboardInterrupt):
        drive(run, Plan(20), tmp_path / "run", cut)
    rest, done = Counting(), []
    drive(rest, Plan(20), tmp_path / "run", done.append)
    assert rest.points == whole.points
    assert done == [stop, *[1] * (20 - stop), 0]


@given(count=st.integers(1, 30), size=st.integers(1, 12), seed=st.integers(0, 5))
def test_every_example_is_taken_before_any_is_taken_again(count, size, seed):
    plan = Plan(steps=100, batch_size=size, seed=seed)
    taken = [number for step in range(count) for number in drawn(count, plan, step)]
    assert len(taken) == count * size
    for epoch in range(size):
        assert sorted(taken[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_another_seed_another_order():
    orders = [drawn(20, Plan(steps=1, batch_size=20, seed=seed), 0) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_a_fixed_sample_judges(some_examples, monkeypatch):
    monkeypatch.setattr(steps, "HELD_OUT", 5)
    held_out = some_examples(12)
    assert len(judges(held_out, 0)) == 5
    assert judges(held_out, 0) == judges(held_out, 0) != judges(held_out, 1)
    assert sorted(judges(held_out[:3], 0), key=held_out.index) == held_out[:3]


def test_before_the_first_update_there_is_no_training_loss_to_show():
    assert written(mean_loss([])) == "none yet"
    assert written(mean_loss([1.0, 2.0])) == "1.5000"
