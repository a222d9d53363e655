from __future__ import annotations

import math

import pytest
import torch

from idp.errors import BankError, ModelError, TaskError
from idp.tune import loop, steps
from idp.tune.initial import initial
from idp.tune.loop import Job, tune
from idp.tune.objective import Objective
from idp.tune.plan import Plan


@pytest.fixture
def setting(tiny_lm, some_examples):
    lm = tiny_lm()
    examples = some_examples(12)
    return lm, initial("frequent", lm, examples, 4, 0), examples, some_examples(6, seed=1)


@pytest.fixture
def three(setting, some_examples):
    """Three prompts of different lengths, each with its own examples."""
    lm, init, _, _ = setting
    return lm, [
        Job(f"p{n}", init[: 2 + n], some_examples(9, seed=10 + n), some_examples(5, seed=20 + n)) for n in range(3)
    ]


class Interruption(Exception):
    pass


def tune_one(lm, init, examples, held_out, *, checkpoint=None, advance=None, terms="answer+choice", **plan):
    return tune(
        Objective(lm, terms), [Job("p", init, examples, held_out)], Plan(**plan), checkpoint=checkpoint, advance=advance
    )[0]


def test_tuning_lowers_the_training_loss_and_never_returns_worse_than_the_start(setting):
    lm, init, examples, _ = setting
    tuned = tune_one(lm, init, examples, examples, steps=40, lr=0.05, batch_size=12)
    assert tuned.best.held_out < tuned.curve[0].held_out - 0.3
    assert tuned.embedding.shape == init.shape
    assert tuned.embedding.dtype == torch.float32
    assert [point.step for point in tuned.curve] == list(range(0, 41, 4))
    assert math.isnan(tuned.curve[0].train)
    assert all(math.isfinite(point.train) for point in tuned.curve[1:])


@pytest.mark.parametrize("architecture", ["opt", "gpt2", "bloom"])
def test_tunes_other_architectures(tiny_lm, some_examples, architecture):
    lm, examples = tiny_lm(architecture), some_examples(6)
    init = initial("frequent", lm, examples, 3, 0)
    tuned = tune_one(lm, init, examples, examples, steps=10, lr=0.05, batch_size=6)
    assert tuned.best.held_out < tuned.curve[0].held_out


def test_the_best_prompt_is_kept_not_the_last(setting):
    lm, init, examples, held_out = setting
    tuned = tune_one(lm, init, examples, held_out, steps=20, lr=5.0, batch_size=4)
    again = tune_one(lm, tuned.embedding, examples, held_out, steps=0)
    assert again.curve[0].held_out == pytest.approx(min(point.held_out for point in tuned.curve))


def test_first_update_is_adams(setting):
    lm, init, examples, _ = setting
    tuned = tune_one(lm, init, examples, examples, steps=1, lr=1e-3, batch_size=12)
    assert tuned.best.step == 1
    torch.testing.assert_close((tuned.embedding - init).abs(), torch.full_like(init, 1e-3), atol=2e-4, rtol=0)


def test_adafactor_lowers_the_loss_too(setting):
    lm, init, examples, _ = setting
    plan = {"optimizer": "adafactor", "schedule": "constant", "lr": 0.05}
    tuned = tune_one(lm, init, examples, examples, steps=20, batch_size=12, **plan)
    assert tuned.best.held_out < tuned.curve[0].held_out - 0.3


def test_zero_steps_return_the_start(setting):
    lm, init, examples, held_out = setting
    tuned = tune_one(lm, init, examples, held_out, steps=0)
    assert torch.equal(tuned.embedding, init)
    assert len(tuned.curve) == 1


def test_same_seed_same_bytes_and_another_seed_another_prompt(setting):
    lm, init, examples, held_out = setting
    runs = [tune_one(lm, init, examples, held_out, steps=3, batch_size=4, seed=seed).embedding for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_the_start_and_the_model_are_not_changed(setting):
    lm, init, examples, held_out = setting
    before, weights = init.clone(), [p.clone() for p in lm.model.parameters()]
    tune_one(lm, init, examples, held_out, steps=2, batch_size=4)
    assert torch.equal(init, before)
    assert all(torch.equal(*pair) for pair in zip(weights, lm.model.parameters(), strict=True))


def test_prompts_side_by_side_equal_prompts_one_by_one(three):
    lm, jobs = three
    plan = Plan(steps=4, batch_size=4, lr=0.01)
    together = tune(Objective(lm), jobs, plan)
    alone = [tune(Objective(lm), [job], plan)[0] for job in jobs]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.embedding, other.embedding, atol=1e-3, rtol=1e-3)
        assert [p.held_out for p in one.curve] == pytest.approx([p.held_out for p in other.curve], rel=1e-3)


def test_fewer_rows_at_once_give_the_same_gradients(setting):
    lm, init, examples, held_out = setting
    runs = [tune_one(lm, init, examples, held_out, steps=3, batch_size=8, rows_at_once=rows) for rows in (0, 2)]
    torch.testing.assert_close(runs[0].embedding, runs[1].embedding, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_an_interrupted_run_ends_as_if_it_had_not_been(three, tmp_path, monkeypatch, stop, optimizer):
    lm, jobs = three
    monkeypatch.setattr(steps, "SAVE_EVERY", 1)
    plan = Plan(steps=8, batch_size=5, seed=3, optimizer=optimizer, patience=7)
    whole = tune(Objective(lm), jobs, plan)
    done = []

    def interrupt(count):
        done.append(count)
        if sum(done) == 3 * stop:
            raise Interruption

    path = tmp_path / "p.safetensors"
    with pytest.raises(Interruption):
        tune(Objective(lm), jobs, plan, checkpoint=path, advance=interrupt)
    resumed = []
    rest = tune(Objective(lm), jobs, plan, checkpoint=path, advance=resumed.append)
    for one, other in zip(rest, whole, strict=True):
        assert torch.equal(one.embedding, other.embedding)
        assert str(one.curve) == str(other.curve)
    assert resumed[0] == 3 * stop
    assert sum(resumed) == 24


def test_a_prompt_without_progress_is_done_early(setting, some_examples):
    lm, init, examples, held_out = setting
    jobs = [Job("good", init, examples, examples), Job("bad", init, some_examples(8, seed=5), held_out)]
    good, bad = tune(Objective(lm), jobs, Plan(steps=40, lr=0.3, batch_size=8, patience=2))
    assert bad.curve[-1].step < good.curve[-1].step
    assert bad.curve[-1].step - bad.best.step == 8  # two measurements


def test_progress_and_curves_are_told(three):
    lm, jobs = three
    counts, points = [], []
    tuned = tune(
        Objective(lm),
        jobs,
        Plan(steps=3, batch_size=2),
        advance=counts.append,
        watch=lambda *pair: points.append(pair),
    )
    assert sum(counts) == 9
    assert len(points) == len(tuned[0].curve)
    assert points[-1] == pytest.approx([sum(one.curve[-1][place] for one in tuned) / 3 for place in (1, 2)])


def test_a_finished_run_is_read_and_not_repeated(setting, tmp_path, monkeypatch):
    lm, init, examples, held_out = setting
    path = tmp_path / "work" / "p.safetensors"
    first = tune_one(lm, init, examples, held_out, steps=2, batch_size=4, checkpoint=path)
    monkeypatch.setattr(loop._Run, "update", lambda *_: pytest.fail("tuned again"))
    again = tune_one(lm, init, examples, held_out, steps=2, batch_size=4, checkpoint=path)
    assert torch.equal(first.embedding, again.embedding)


def test_another_runs_checkpoint_is_passed_over_with_a_warning(setting, tmp_path, caplog):
    lm, init, examples, held_out = setting
    path = tmp_path / "p.safetensors"
    tune_one(lm, init, examples, held_out, steps=2, batch_size=4, seed=0, checkpoint=path)
    other = tune_one(lm, init, examples, held_out, steps=2, batch_size=4, seed=1, checkpoint=path)
    assert "another run" in caplog.text
    fresh = tune_one(lm, init, examples, held_out, steps=2, batch_size=4, seed=1)
    assert torch.equal(other.embedding, fresh.embedding)


def test_a_broken_checkpoint_is_passed_over_with_a_warning(setting, tmp_path, caplog):
    lm, init, examples, held_out = setting
    path = tmp_path / "p.safetensors"
    path.write_bytes(b"not a checkpoint")
    tune_one(lm, init, examples, held_out, steps=1, batch_size=4, checkpoint=path)
    assert "cannot continue" in caplog.text


def test_divergence_is_named(setting):
    lm, init, examples, held_out = setting
    with pytest.raises(ModelError, match="not finite"):
        tune_one(lm, torch.full_like(init, torch.inf), examples, held_out, steps=2)


@pytest.mark.parametrize(("measurements", "points"), [(2, [0, 3, 6]), (4, [0, 2, 4, 6]), (100, [0, 1, 2, 3, 4, 5, 6])])
def test_the_held_out_loss_is_measured_as_often_as_wanted(setting, measurements, points):
    found = tune_one(*setting, steps=6, measurements=measurements)
    assert [point.step for point in found.curve] == points


def test_a_model_without_a_backward_pass_is_named(setting, monkeypatch):
    lm, init, examples, held_out = setting
    monkeypatch.setattr(lm.model, "forward", torch.no_grad()(lm.model.forward))
    with pytest.raises(ModelError, match="no gradient reaches"):
        tune_one(lm, init, examples, held_out, steps=1)


@pytest.mark.parametrize("empty", [2, 3])
def test_no_examples_are_refused(setting, empty):
    arguments = [*setting]
    arguments[empty] = []
    with pytest.raises(TaskError, match="is empty"):
        tune_one(*arguments, steps=1)


def test_nothing_to_tune_is_refused(tiny_lm):
    with pytest.raises(TaskError, match="no prompt"):
        tune(Objective(tiny_lm()), [], Plan(steps=1))


def test_a_start_of_another_width_is_refused(setting):
    lm, _, examples, held_out = setting
    with pytest.raises(BankError, match=r"\(4, 7\)"):
        tune_one(lm, torch.zeros(4, 7), examples, held_out, steps=1)
