from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.errors import BankError, ModelError, TaskError
from idp.tune import loop
from idp.tune.initial import frequent_rows
from idp.tune.loop import learning_rate, tune_prompt


@pytest.fixture
def setting(tiny_lm, some_examples):
    lm = tiny_lm()
    examples = some_examples(12)
    return lm, frequent_rows(lm, examples, 4, seed=0), examples, some_examples(6, seed=1)


class Interruption(Exception):
    pass


def test_tuning_lowers_the_training_loss_and_never_returns_worse_than_the_start(setting):
    lm, init, examples, _ = setting
    tuned = tune_prompt(lm, init, examples, examples, steps=40, lr=0.05, batch_size=12)
    assert tuned.best.held_out < tuned.curve[0].held_out - 0.3
    assert tuned.embedding.shape == init.shape
    assert tuned.embedding.dtype == torch.float32
    assert [point.step for point in tuned.curve] == list(range(0, 41, 4))
    assert math.isnan(tuned.curve[0].train)
    assert all(math.isfinite(point.train) for point in tuned.curve[1:])


def test_the_best_prompt_is_kept_not_the_last(setting):
    lm, init, examples, held_out = setting
    tuned = tune_prompt(lm, init, examples, held_out, steps=20, lr=5.0, batch_size=4)
    again = tune_prompt(lm, tuned.embedding, examples, held_out, steps=0)
    assert again.curve[0].held_out == pytest.approx(min(point.held_out for point in tuned.curve))


def test_first_update_is_adams(setting):
    lm, init, examples, _ = setting
    tuned = tune_prompt(lm, init, examples, examples, steps=1, lr=1e-3, batch_size=12)
    assert tuned.best.step == 1
    torch.testing.assert_close((tuned.embedding - init).abs(), torch.full_like(init, 1e-3), atol=2e-4, rtol=0)


def test_zero_steps_return_the_start(setting):
    lm, init, examples, held_out = setting
    tuned = tune_prompt(lm, init, examples, held_out, steps=0)
    assert torch.equal(tuned.embedding, init)
    assert len(tuned.curve) == 1


def test_same_seed_same_bytes_and_another_seed_another_prompt(setting):
    lm, init, examples, held_out = setting
    runs = [tune_prompt(lm, init, examples, held_out, steps=3, batch_size=4, seed=seed).embedding for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_the_start_and_the_model_are_not_changed(setting):
    lm, init, examples, held_out = setting
    before, weights = init.clone(), [p.clone() for p in lm.model.parameters()]
    tune_prompt(lm, init, examples, held_out, steps=2, batch_size=4)
    assert torch.equal(init, before)
    assert all(torch.equal(*pair) for pair in zip(weights, lm.model.parameters(), strict=True))


@pytest.mark.parametrize("stop", [1, 3, 7])
def test_an_interrupted_run_ends_as_if_it_had_not_been(setting, tmp_path, monkeypatch, stop):
    lm, init, examples, held_out = setting
    monkeypatch.setattr(loop, "_SAVE_EVERY", 1)
    arguments = {"steps": 8, "batch_size": 5, "seed": 3}
    whole = tune_prompt(lm, init, examples, held_out, **arguments)
    done = []

    def interrupt(count):
        done.append(count)
        if sum(done) == stop:
            raise Interruption

    with pytest.raises(Interruption):
        tune_prompt(lm, init, examples, held_out, **arguments, checkpoint=tmp_path / "p.safetensors", advance=interrupt)
    resumed = []
    rest = tune_prompt(
        lm, init, examples, held_out, **arguments, checkpoint=tmp_path / "p.safetensors", advance=resumed.append
    )
    assert torch.equal(rest.embedding, whole.embedding)
    assert str(rest.curve) == str(whole.curve)
    assert resumed == [stop, *[1] * (8 - stop)]


def test_a_finished_run_is_read_and_not_repeated(setting, tmp_path, monkeypatch):
    lm, init, examples, held_out = setting
    path = tmp_path / "work" / "p.safetensors"
    first = tune_prompt(lm, init, examples, held_out, steps=2, batch_size=4, checkpoint=path)
    monkeypatch.setattr(loop._Run, "update", lambda *_: pytest.fail("tuned again"))
    again = tune_prompt(lm, init, examples, held_out, steps=2, batch_size=4, checkpoint=path)
    assert torch.equal(first.embedding, again.embedding)


def test_another_runs_checkpoint_is_passed_over_with_a_warning(setting, tmp_path, caplog):
    lm, init, examples, held_out = setting
    path = tmp_path / "p.safetensors"
    tune_prompt(lm, init, examples, held_out, steps=2, batch_size=4, seed=0, checkpoint=path)
    other = tune_prompt(lm, init, examples, held_out, steps=2, batch_size=4, seed=1, checkpoint=path)
    assert "another tuning run" in caplog.text
    fresh = tune_prompt(lm, init, examples, held_out, steps=2, batch_size=4, seed=1)
    assert torch.equal(other.embedding, fresh.embedding)


def test_a_broken_checkpoint_is_passed_over_with_a_warning(setting, tmp_path, caplog):
    lm, init, examples, held_out = setting
    path = tmp_path / "p.safetensors"
    path.write_bytes(b"not a checkpoint")
    tune_prompt(lm, init, examples, held_out, steps=1, batch_size=4, checkpoint=path)
    assert "cannot continue" in caplog.text


def test_divergence_is_named(setting):
    lm, init, examples, held_out = setting
    broken = torch.full_like(init, torch.inf)
    with pytest.raises(ModelError, match="not finite"):
        tune_prompt(lm, broken, examples, held_out, steps=2)


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"steps": 1, "batch_size": 0}, {"steps": 1, "lr": 0.0}])
def test_numbers_that_make_no_sense_are_refused(setting, wrong):
    with pytest.raises(TaskError, match="cannot tune"):
        tune_prompt(*setting, **wrong)


@pytest.mark.parametrize("empty", [2, 3])
def test_no_examples_are_refused(setting, empty):
    arguments = [*setting]
    arguments[empty] = []
    with pytest.raises(TaskError, match="is empty"):
        tune_prompt(*arguments, steps=1)


def test_a_start_of_another_width_is_refused(setting):
    lm, _, examples, held_out = setting
    with pytest.raises(BankError, match=r"\(4, 7\)"):
        tune_prompt(lm, torch.zeros(4, 7), examples, held_out, steps=1)


@given(steps=st.integers(1, 500), peak=st.floats(1e-5, 1.0))
def test_learning_rate_rises_then_falls_and_keeps_its_bounds(steps, peak):
    rates = [learning_rate(step, steps, peak) for step in range(steps)]
    top = rates.index(max(rates))
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)
    assert max(rates) == pytest.approx(peak)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
