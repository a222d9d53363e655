from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from idp.errors import BankError, ModelError, TaskError
from idp.select.smop import route
from idp.tune import mixture, steps
from idp.tune.initial import initial
from idp.tune.loop import Job, tune
from idp.tune.mixture import MixtureConfig, tune_mixture
from idp.tune.objective import Objective
from idp.tune.plan import Plan

CONFIG = MixtureConfig(num_prompts=3, length=2)
ADAMW = Plan(steps=8, lr=0.02, batch_size=5, seed=3)
ADAFACTOR = Plan(8, lr=0.5, batch_size=5, optimizer="adafactor", schedule="linear", warmup=0.06, seed=3)


@pytest.fixture
def setting(tiny_lm, some_examples):
    return Objective(tiny_lm()), some_examples(12), some_examples(6, seed=1)


def tuned(setting, plan=ADAMW, config=CONFIG, **options):
    objective, examples, held_out = setting
    return tune_mixture(objective, config, examples, held_out, plan, **options)


def same(one, other):
    return (
        torch.equal(one.embeddings, other.embeddings)
        and torch.equal(one.router, other.router)
        and str(one.curve) == str(other.curve)
    )


def test_tuning_lowers_the_loss_and_says_who_goes_where(setting):
    objective, examples, _ = setting
    plan = Plan(steps=40, lr=0.05, batch_size=12)
    found = tune_mixture(objective, CONFIG, examples, examples, plan)
    assert found.best.held_out < found.curve[0].held_out - 0.3
    assert found.embeddings.shape == (3, 2, objective.lm.hidden_size)
    assert found.router.shape == (3, objective.lm.hidden_size)
    assert [point.step for point in found.curve] == list(range(0, 41, 4))
    assert math.isnan(found.curve[0].train)
    assert all(math.isfinite(point.train) and sum(point.counts) == 12 for point in found.curve[1:])
    assert len({point.counts for point in found.curve}) > 1


@pytest.mark.parametrize("plan", [replace(ADAMW, steps=20), replace(ADAFACTOR, steps=20)], ids=["adamw", "adafactor"])
def test_one_prompt_is_prompt_tuning(setting, plan):
    """With k = 1 the gate is 1, whatever router and noise say."""
    objective, examples, held_out = setting
    init = initial("frequent", objective.lm, examples, 4, 0)
    [alone] = tune(objective, [Job("alone", init, examples, held_out)], plan)
    mixed = tuned(setting, plan, MixtureConfig(num_prompts=1, length=4, balance=0.5), init=init)
    torch.testing.assert_close(mixed.embeddings[0], alone.embedding, atol=2e-4, rtol=1e-3)
    assert [point.step for point in mixed.curve] == [point.step for point in alone.curve]
    for one, other in zip(mixed.curve, alone.curve, strict=True):
        assert one.held_out == pytest.approx(other.held_out, abs=1e-3)
        assert one.train == pytest.approx(other.train, abs=1e-3, nan_ok=True)
    assert alone.best.held_out < alone.curve[0].held_out


def test_gradients_are_those_of_the_plain_graph(setting):
    """Each row's own prompt is a leaf of its pass; what it gets has to arrive at prompts and router."""
    objective, examples, held_out = setting
    start = initial("frequent", objective.lm, examples, 6, 0).view(3, 2, -1)
    plan = Plan(steps=1, batch_size=12, clip=0.0, rows_at_once=5)
    run = mixture._Run(objective, replace(CONFIG, noise=0.0), examples, held_out, plan, start)
    before = [run.table, run.router]
    table, router = (tensor.detach().clone().requires_grad_() for tensor in before)
    routing = route(router, mixture.mean_embeddings(objective.lm, [example.context for example in examples]))
    assert len(set(routing.chosen.tolist())) > 1
    prompts = [gate.float() * table.view(3, 2, -1)[j] for gate, j in zip(routing.gates, routing.chosen, strict=True)]
    step = objective.behind(prompts)
    torch.autograd.backward(step.losses(objective.views(examples), range(12)).mean())
    step.backward()
    kept = []
    run.optimizer.step = lambda: kept.extend(tensor.grad.clone() for tensor in before)
    run.update()
    for found, expected in zip(kept, (table.grad, router.grad), strict=True):
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_the_best_state_is_kept_not_the_last(setting):
    objective, _, held_out = setting
    found = tuned(setting, Plan(steps=20, lr=3.0, batch_size=4))
    step = objective.behind(list(found.prompts(objective.lm, [example.context for example in held_out])))
    with torch.no_grad():
        loss = float(step.losses(objective.views(held_out), range(len(held_out))).mean())
    assert loss == pytest.approx(found.best.held_out, abs=1e-4)
    assert found.best.held_out < found.curve[-1].held_out


def test_same_seed_same_bytes_and_another_seed_another_mixture(setting):
    first, second = tuned(setting), tuned(setting)
    assert same(first, second)
    other = tuned(setting, replace(ADAMW, seed=4))
    assert not torch.equal(first.router, other.router)


def test_noise_changes_what_is_learned_and_not_what_is_measured(setting):
    with_noise, without = tuned(setting), tuned(setting, config=replace(CONFIG, noise=0.0))
    assert with_noise.curve[0].held_out == without.curve[0].held_out
    assert [point.train for point in with_noise.curve[1:]] != [point.train for point in without.curve[1:]]


def test_the_router_starts_with_orthonormal_rows(setting):
    router = tuned(setting, Plan(steps=0)).router
    torch.testing.assert_close(router @ router.T, torch.eye(3), atol=1e-5, rtol=0)


def test_imbalance_is_one_where_all_are_used_alike():
    even = route(torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double())
    assert float(mixture._imbalance(even)) == pytest.approx(1.0)
    all_to_one = route(torch.eye(2), torch.tensor([[50.0, 0.0], [40.0, 0.0]]).double())
    assert float(mixture._imbalance(all_to_one)) == pytest.approx(2.0)


def test_balance_spreads_the_examples(setting):
    objective, examples, _ = setting
    plan = Plan(steps=30, lr=0.05, batch_size=12)
    most = [
        max(tune_mixture(objective, config, examples, examples, plan).curve[-1].counts)
        for config in (replace(CONFIG, noise=0.0), replace(CONFIG, noise=0.0, balance=30.0))
    ]
    assert most[1] < most[0]


@pytest.mark.parametrize("plan", [ADAMW, ADAFACTOR], ids=["adamw", "adafactor"])
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_an_interrupted_run_ends_as_if_it_had_not_been(setting, tmp_path, monkeypatch, stop, plan):
    monkeypatch.setattr(steps, "SAVE_EVERY", 1)
    whole, done, path = tuned(setting, plan), [], tmp_path / "m.safetensors"

    def interrupt(count):
        done.append(count)
        if sum(done) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(setting, plan, checkpoint=path, advance=interrupt)
    resumed = []
    rest = tuned(setting, plan, checkpoint=path, advance=resumed.append)
    assert same(rest, whole)
    assert resumed[0] == stop
    assert sum(resumed) == 8


def test_a_finished_run_is_read_and_not_repeated(setting, tmp_path, monkeypatch):
    path = tmp_path / "work" / "m.safetensors"
    first = tuned(setting, checkpoint=path)
    monkeypatch.setattr(mixture._Run, "update", lambda *_: pytest.fail("tuned again"))
    assert same(tuned(setting, checkpoint=path), first)


@pytest.mark.parametrize("change", [{"config": replace(CONFIG, noise=0.5)}, {"plan": replace(ADAMW, lr=0.01)}])
def test_another_runs_checkpoint_is_passed_over(setting, tmp_path, caplog, change):
    path = tmp_path / "m.safetensors"
    tuned(setting, checkpoint=path)
    assert same(tuned(setting, checkpoint=path, **change), tuned(setting, **change))
    assert "another run" in caplog.text


def test_patience_ends_a_run(setting):
    found = tuned(setting, Plan(steps=100, lr=20.0, batch_size=2, patience=2))
    assert found.curve[-1].step < 100
    assert found.curve[-1].step - found.best.step == 20


def test_prompts_start_where_they_are_told_to(setting):
    objective, examples, _ = setting
    zero = Plan(steps=0, seed=5)
    own = torch.randn(3, 2, objective.lm.hidden_size)
    untuned = tuned(setting, zero, init=own)
    assert torch.equal(untuned.embeddings, own)
    assert torch.equal(untuned.starts, own)
    assert torch.equal(tuned(setting, zero, init=own[0]).embeddings, own[:1].expand(3, -1, -1))
    drawn = tuned(setting, zero, init="vocabulary").embeddings
    assert torch.equal(drawn[1], initial("vocabulary", objective.lm, examples, 2, seed=6))
    assert not torch.equal(drawn[0], drawn[1])


def test_examples_longer_than_a_packed_row_may_be_beside_short_ones(setting, some_examples):
    """Two ways to run rows in one batch still give one gradient."""
    objective, examples, held_out = setting
    objective._reach = sorted(example.request.packed_length for example in examples)[6] + 2
    plan = Plan(steps=2, batch_size=12)
    split = tuned((objective, examples, held_out), plan)
    whole = tuned((Objective(objective.lm), examples, held_out), plan)
    torch.testing.assert_close(split.embeddings, whole.embeddings, atol=1e-3, rtol=1e-2)


def test_the_model_and_the_start_are_not_changed(setting):
    objective = setting[0]
    start = torch.randn(3, 2, objective.lm.hidden_size)
    before, weights = start.clone(), [weight.clone() for weight in objective.lm.model.parameters()]
    tuned(setting, init=start)
    assert torch.equal(start, before)
    assert all(torch.equal(*pair) for pair in zip(weights, objective.lm.model.parameters(), strict=True))


def test_divergence_is_named(setting):
    with pytest.raises(ModelError, match=r"'the mixture' diverged at step 0.*not finite"):
        tuned(setting, init=torch.full((3, 2, 32), torch.inf))


@pytest.mark.parametrize("plain", [True, False])
def test_a_model_without_a_backward_pass_is_named(setting, monkeypatch, plain):
    objective, examples, held_out = setting
    body = objective.lm.model.get_decoder()
    monkeypatch.setattr(body, "forward", torch.no_grad()(body.forward))
    with pytest.raises(ModelError, match="no gradient reaches"):
        if plain:
            objective.reach = 0
        tuned((objective, examples, held_out))


@pytest.mark.parametrize(
    "wrong", [{"num_prompts": 0}, {"length": 0}, {"noise": -1.0}, {"noise": math.nan}, {"balance": math.inf}]
)
def test_a_mixture_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(TaskError, match="mixture"):
        MixtureConfig(**wrong)


@pytest.mark.parametrize("empty", [1, 2])
def test_no_examples_are_refused(setting, empty):
    arguments = [*setting]
    arguments[empty] = []
    with pytest.raises(TaskError, match="is empty"):
        tuned(arguments)


@pytest.mark.parametrize("shape", [(2, 2, 32), (3, 2, 7), (32,), (3, 32)])
def test_a_start_of_another_shape_is_refused(setting, shape):
    with pytest.raises(BankError, match=r"needs \(3, 2, 32\)"):
        tuned(setting, init=torch.zeros(shape))
