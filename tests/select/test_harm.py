"""A router does no harm: it abstains where prompts hurt, and where an input is like nothing it has seen."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.bank import Prompt, PromptBank
from idp.run.store import PrefixStore
from idp.select import Calibration, RouterSelector
from idp.select.linear import unit_losses
from idp.select.training import ALWAYS, Lesson, Training, with_margin
from idp.select.typical import Typical
from idp.tune.examples import Example
from idp.tune.losses import example_losses

BANK = PromptBank([Prompt("a", text="one"), Prompt("b", text="two")])


def _inputs(count: int, seed: int, words: range = range(100, 130)) -> list[list[int]]:
    random = torch.Generator().manual_seed(seed)
    return [(words.start + torch.randint(len(words), (6,), generator=random)).tolist() for _ in range(count)]


@pytest.mark.parametrize("features", ["embedding", "state"])
def test_prompts_that_always_hurt_are_never_chosen(tiny_lm: Any, features: str) -> None:
    inputs = _inputs(120, seed=0)
    losses = torch.rand(120, 3, generator=torch.Generator().manual_seed(1))
    losses[:, :2] += 1.0
    router = RouterSelector(features=features).fit(BANK, tiny_lm(), Calibration(inputs, losses))
    assert {choice.index for choice in router.select_batch([*inputs, *_inputs(60, seed=2), []])} == {-1}


def test_where_only_noise_speaks_for_prompts_the_router_abstains_and_says_so(
    tiny_lm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Overfitted on purpose: without a penalty the map learns noise by heart, and pays for it when held out."""
    inputs, fresh = _inputs(150, seed=3), _inputs(150, seed=4)
    noise = torch.rand(150, 3, generator=torch.Generator().manual_seed(5))
    losses = noise + torch.tensor([0.2, 0.2, 0.0])
    calibration = Calibration(inputs, losses)
    with caplog.at_level(logging.WARNING):
        careful = RouterSelector(l2=0.0, teacher="none").fit(BANK, tiny_lm(), calibration)
    assert "abstain" in caplog.text or "do harm" in caplog.text
    careless = RouterSelector(l2=0.0, teacher="none", abstain=False).fit(BANK, tiny_lm(), calibration)

    def chosen(router: RouterSelector) -> float:
        return sum(choice.index != -1 for choice in router.select_batch(fresh)) / 150

    assert chosen(careful) < chosen(careless) / 2


@pytest.mark.parametrize("features", ["embedding", "state"])
def test_a_bank_of_harmful_prompts_on_a_real_model(tiny_lm: Any, features: str) -> None:
    """Huge vectors in front of a model make every answer a guess; the model itself is taught nothing here."""
    lm = tiny_lm()
    random = torch.Generator().manual_seed(6)
    bank = PromptBank(
        [Prompt(f"bad-{i}", embedding=50 * torch.randn(4, lm.hidden_size, generator=random)) for i in range(3)]
    )
    with torch.no_grad():
        store = PrefixStore(lm, bank)
        contexts = _inputs(80, seed=7)
        likely = [int(lm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()) for ids in contexts]
    examples = [Example(tuple(ids), ((answer,),), 0, "t") for ids, answer in zip(contexts, likely, strict=True)]
    losses = example_losses(store, examples)
    assert losses[:, -1].mean() < losses[:, :-1].mean(dim=0).min()
    router = RouterSelector(features=features).fit(bank, lm, Calibration(contexts[:60], losses[:60]))
    rows = torch.arange(60, 80)
    chosen = losses[rows, [choice.index for choice in router.select_batch(contexts[60:])]]
    excess = chosen - losses[60:, -1]
    assert excess.mean() <= 1.96 * excess.std() / 20**0.5


def test_inputs_from_elsewhere_get_no_prompt(tiny_lm: Any) -> None:
    lm, inputs = tiny_lm(), _inputs(300, seed=8)
    losses = torch.tensor([[0.0, 0.5, 1.0]]).repeat(300, 1) + 0.1 * torch.rand(
        300, 3, generator=torch.Generator().manual_seed(9)
    )
    calibration = Calibration(inputs, losses)
    router = RouterSelector().fit(BANK, lm, calibration)
    elsewhere = [[token] * 12 for token in range(20, 60)]
    assert [choice.index for choice in router.select_batch(elsewhere)].count(-1) >= 38
    at_home = [choice.index for choice in router.select_batch(_inputs(200, seed=10))]
    assert at_home.count(0) >= 195
    again = RouterSelector().load_state(router.state(), BANK, lm)
    assert again.select_batch(elsewhere) == router.select_batch(elsewhere)
    careless = RouterSelector(abstain=False).fit(BANK, lm, calibration)
    assert {choice.index for choice in careless.select_batch(elsewhere)} == {0}


@given(seed=st.integers(0, 10_000), harm=st.floats(-0.5, 0.5))
@settings(max_examples=15, deadline=None)
def test_held_out_choices_never_cost_more_than_none_by_more_than_noise(seed: int, harm: float) -> None:
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(100, 3, generator=random, dtype=torch.float64)
    losses = torch.rand(100, 4, generator=random, dtype=torch.float64)
    losses[:, :-1] += harm
    lesson = Lesson(features, unit_losses(losses), torch.arange(100) % 5)
    training = Training(l2=1e-3)
    _, judged = training._plan(lesson)
    assert judged is not None
    logits = with_margin(judged, training.run(lesson).margin)
    excess = losses.gather(1, logits.argmax(dim=1, keepdim=True))[:, 0] - losses[:, -1]
    assert excess.mean() <= 1.96 * excess.std() / 10


def test_a_margin_of_always_leaves_nothing_else() -> None:
    assert with_margin(torch.tensor([[100.0, -100.0]]), ALWAYS).softmax(dim=1).tolist() == [[0.0, 1.0]]


def test_what_is_usual_needs_enough_to_tell() -> None:
    assert Typical.of(torch.randn(50, 3, dtype=torch.float64), torch.arange(50) % 5) is None
    assert Typical.of(torch.randn(500, 3, dtype=torch.float64), torch.zeros(500)) is None


def test_directions_that_never_vary_are_strange_at_once() -> None:
    random = torch.Generator().manual_seed(11)
    seen = torch.randn(500, 6, generator=random, dtype=torch.float64)
    seen[:, 5] = 0.0
    usual = Typical.of(seen, torch.arange(500) % 5)
    assert usual is not None
    new = torch.randn(200, 6, generator=random, dtype=torch.float64)
    new[:, 5] = 0.0
    assert int(usual.strange(new).sum()) <= 4
    new[:, 5] = 1.0
    assert bool(usual.strange(new).all())
