from __future__ import annotations

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.errors import TaskError
from idp.select.smop import SmopSelector, route
from idp.tune.mixture import Mixture, MixtureConfig, MixturePoint, tune_mixture
from idp.tune.mixture_bank import mixture_bank
from idp.tune.objective import Objective
from idp.tune.plan import Plan


@pytest.fixture
def lm(tiny_lm):
    return tiny_lm()


def mixture_of(lm, count, scale):
    generator = torch.Generator().manual_seed(1)
    embeddings = 0.3 * torch.randn(count, 2, lm.hidden_size, generator=generator)
    router = scale * torch.randn(count, lm.hidden_size, generator=generator)
    return Mixture(embeddings, router, [MixturePoint(0, float("nan"), 1.0, (0,) * count)], embeddings)


def loss_of(objective, examples, prompts, owners):
    with torch.no_grad():
        return objective.behind(prompts).losses(objective.views(examples), owners)  # (N,)


def test_each_prompt_holds_its_mean_gate(lm, some_examples):
    mixture, examples = mixture_of(lm, 3, scale=3.0), some_examples(40)
    bank = mixture_bank(mixture, lm, examples)
    scores = [choice.scores[:3] for choice in SmopSelector().fit(bank, lm).select_batch([e.context for e in examples])]
    for number, prompt in enumerate(bank):
        own = [max(row) for row in scores if row.index(max(row)) == number]
        assert prompt.provenance["routed"] == len(own) > 0
        assert prompt.provenance["gate"] == pytest.approx(sum(own) / len(own))
        torch.testing.assert_close(prompt.embedding, mixture.embeddings[number] * prompt.provenance["gate"])
    assert bank.provenance["held_out_loss"] == 1.0
    assert bank.fingerprint == lm.fingerprint


def test_a_prompt_that_nothing_is_routed_to_has_its_largest_gate(lm, some_examples):
    mixture, examples = mixture_of(lm, 3, scale=3.0), some_examples(40)
    [first, *_] = examples
    bank = mixture_bank(mixture, lm, [first])
    [score] = SmopSelector().fit(bank, lm).select_batch([first.context])
    assert sorted(prompt.provenance["routed"] for prompt in bank) == [0, 0, 1]
    assert [prompt.provenance["gate"] for prompt in bank] == pytest.approx(score.scores[:3])


def test_one_prompt_is_exact(lm, some_examples):
    mixture = mixture_of(lm, 1, scale=3.0)
    bank = mixture_bank(mixture, lm, some_examples(5))
    assert torch.equal(bank[0].embedding, mixture.embeddings[0])
    assert bank[0].provenance["gate_spread"] == 0.0


def test_a_constant_gate_is_exact(lm, some_examples):
    """One context, one gate: what is cached is what was trained."""
    mixture, [example] = mixture_of(lm, 3, scale=3.0), some_examples(1)
    bank = mixture_bank(mixture, lm, [example] * 3)
    [choice] = SmopSelector().fit(bank, lm).select_batch([example.context])
    torch.testing.assert_close(bank[choice.index].embedding, mixture.prompts(lm, [example.context])[0])


def test_cached_prompts_cost_about_what_gated_ones_do(lm, some_examples):
    """How far a gate that does not look at the input is from one that does, on a mixture that was trained."""
    objective, examples, others = Objective(lm), some_examples(30), some_examples(30, seed=1)
    plan = Plan(steps=40, lr=0.05, batch_size=15)
    mixture = tune_mixture(objective, MixtureConfig(num_prompts=3, length=2), examples, examples, plan)
    bank = mixture_bank(mixture, lm, others)
    contexts = [example.context for example in examples]
    exact = loss_of(objective, examples, list(mixture.prompts(lm, contexts)), range(30))
    chosen = [choice.index for choice in SmopSelector().fit(bank, lm).select_batch(contexts)]
    cached = loss_of(objective, examples, [prompt.embedding for prompt in bank], chosen)
    assert len(set(chosen)) == 3
    gained = mixture.curve[0].held_out - float(exact.mean())

    assert float(exact.mean()) == pytest.approx(mixture.best.held_out, abs=1e-4)
    assert 0 < float((cached - exact).abs().mean()) < 0.1 * gained


def test_the_saved_bank_chooses_as_the_mixture_does(lm, some_examples, tmp_path):
    mixture, examples = mixture_of(lm, 3, scale=3.0), some_examples(20)
    bank = PromptBank.load(mixture_bank(mixture, lm, examples).save(tmp_path))
    contexts = [example.context for example in examples]
    choices = SmopSelector().fit(bank, lm).select_batch(contexts)
    features = torch.stack([lm.embed(torch.tensor(context)).double().mean(0) for context in contexts])
    assert [choice.index for choice in choices] == route(mixture.router, features).chosen.tolist()


def test_gates_need_examples(lm):
    with pytest.raises(TaskError, match="measured on examples"):
        mixture_bank(mixture_of(lm, 2, scale=1.0), lm, [])
