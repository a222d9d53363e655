from __future__ import annotations

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import SelectorError, TaskError
from idp.select.attention import AttentionSelector
from idp.select.calibration import Calibration
from idp.select.registry import get_selector
from idp.select.router import RouterSelector
from idp.tune.fitting import FITTED, cross_fitted_losses, with_fitted_selectors


@pytest.fixture
def lm(tiny_lm):
    return tiny_lm()


@pytest.fixture
def bank(lm):
    generator = torch.Generator().manual_seed(0)
    return PromptBank(
        [Prompt(name, embedding=0.3 * torch.randn(3, lm.hidden_size, generator=generator)) for name in "ab"],
        lm.fingerprint,
    )


@pytest.fixture
def calibration():
    """Two topics; prompt a is right for one, prompt b for the other, and no prompt is in between."""
    inputs = [[1, 20, 20, 3 + i] if i % 2 else [1, 200, 200, 3 + i] for i in range(60)]
    losses = torch.tensor([[0.0, 2.0, 1.1] if i % 2 else [2.0, 0.0, 1.1] for i in range(60)])
    return Calibration(inputs, losses, ["odd" if i % 2 else "even" for i in range(60)])


def test_the_bank_keeps_selectors_that_can_be_loaded(bank, lm, calibration, tmp_path):
    fitted = with_fitted_selectors(bank, lm, calibration)
    attention = {"attention:calibrate=center", "attention:calibrate=zscore"}
    assert set(fitted.selectors) == set(FITTED) == {"static", *attention, "router", "router:features=state"}
    kept = PromptBank.load(fitted.save(tmp_path))
    for name, state in kept.selectors.items():
        selector = get_selector(name).load_state(state, kept, lm)
        assert len(selector.select_batch([[1, 20, 20], [1, 200, 200]])) == 2
    router = get_selector("router").load_state(kept.selectors["router"], kept, lm)
    assert [choice.index for choice in router.select_batch([[1, 20, 20, 9], [1, 200, 200, 9]])] == [0, 1]


@pytest.mark.parametrize("broken", [AttentionSelector, RouterSelector])
def test_what_cannot_look_into_the_model_is_left_out(bank, lm, calibration, monkeypatch, caplog, broken):
    def unknown(self, lm):
        raise SelectorError("an unknown kind of model.")

    monkeypatch.setattr(broken, "require", unknown)
    left = {name for name in FITTED if not name.startswith(broken.name)}
    assert set(with_fitted_selectors(bank, lm, calibration).selectors) == left
    assert "is left out: an unknown kind of model." in caplog.text
    costs = cross_fitted_losses(bank, lm, calibration, seed=0, folds=2)
    assert set(costs) == left | {"none", "oracle"} | ({"attention"} if broken is RouterSelector else set())


def test_costs_are_ordered_and_the_oracle_bounds_them(bank, lm, calibration):
    costs = cross_fitted_losses(bank, lm, calibration, seed=0, folds=5)
    assert set(costs) == {"none", "attention", *FITTED, "oracle"}
    assert float(costs["none"].mean()) == pytest.approx(1.1)
    assert float(costs["oracle"].mean()) == 0.0
    assert float(costs["router"].mean()) < 0.2
    assert all(bool((cost >= costs["oracle"]).all()) for cost in costs.values())


@pytest.mark.parametrize("copies", [1, 3])
def test_no_input_is_chosen_for_by_a_selector_that_saw_it(bank, lm, copies):
    """With losses that are noise, a selector fitted on what it is measured on would look good."""
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randint(3, 384, (6,), generator=generator).tolist() for _ in range(40)]
    losses = torch.rand(40, 3, generator=generator, dtype=torch.float64)
    costs = cross_fitted_losses(bank, lm, Calibration(inputs * copies, losses.repeat(copies, 1)), seed=0, folds=5)
    assert abs(float(costs["router"].mean() - losses.mean())) < 0.15


@pytest.mark.parametrize("folds", [1, 61])
def test_an_impossible_number_of_folds_is_refused(bank, lm, calibration, folds):
    with pytest.raises(TaskError, match="folds"):
        cross_fitted_losses(bank, lm, calibration, seed=0, folds=folds)
