"""The protocol: calibration is checked, ties are broken one way, an unfitted selector says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.bank import Prompt, PromptBank, SelectorState
from idp.errors import SelectorError
from idp.select import Calibration, NoneSelector, RandomSelector, RouterSelector, Selector, StaticSelector
from idp.select.base import pick

BANK = PromptBank([Prompt("a", text="one"), Prompt("b", text="two")])


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=5))
def test_pick_takes_the_first_of_the_largest(rows: list[list[int]]) -> None:
    for row, choice in zip(rows, pick(torch.tensor(rows, dtype=torch.float32)), strict=True):
        first = row.index(max(row))
        assert choice.index == (-1 if first == 3 else first)
        assert choice.score == choice.scores[choice.index] == max(row)
        assert choice.scores == tuple(row)


def test_pick_refuses_nan_and_takes_infinity() -> None:
    with pytest.raises(SelectorError, match="NaN"):
        pick(torch.tensor([[0.0, float("nan")]]))
    assert pick(torch.tensor([[-torch.inf, -torch.inf, 0.0]]))[0].index == -1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": []}, "no inputs"),
        ({"inputs": [[1]], "groups": ["a", "b"]}, "1 inputs but 2 groups"),
        ({"inputs": [[1]], "hints": [0, 1]}, "1 inputs but 2 hints"),
        ({"inputs": [[1]], "losses": torch.zeros(2, 3)}, "shape"),
        ({"inputs": [[1]], "losses": torch.zeros(3)}, "shape"),
        ({"inputs": [[1]], "losses": torch.tensor([[1.0, float("nan")]])}, "NaN"),
    ],
)
def test_broken_calibration(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        Calibration(**arguments)


def test_losses_must_fit_the_bank() -> None:
    with pytest.raises(SelectorError, match="none"):
        Calibration([[1]]).require_losses(2)
    with pytest.raises(SelectorError, match="2 columns, but a bank of 2 needs 3"):
        Calibration([[1]], torch.zeros(1, 2)).require_losses(2)


@pytest.mark.parametrize("selector", [StaticSelector(), RandomSelector(), RouterSelector()])
def test_unfitted(selector: Selector) -> None:
    with pytest.raises(SelectorError, match="not fitted"):
        selector.select([1])
    with pytest.raises(SelectorError, match="not fitted"):
        selector.state()


@pytest.mark.parametrize("selector", [StaticSelector(), RouterSelector()])
def test_needs_losses(selector: Selector, tiny_lm: Any) -> None:
    assert selector.needs == "losses"
    with pytest.raises(SelectorError, match="got no calibration"):
        selector.fit(BANK, tiny_lm())
    with pytest.raises(SelectorError, match="learns from losses"):
        selector.fit(BANK, tiny_lm(), Calibration([[1]]))


def test_state_belongs_to_the_prompts_it_was_fitted_on(tiny_lm: Any) -> None:
    lm = tiny_lm()
    state = NoneSelector().fit(BANK, lm).state()
    assert state.config["prompts"] == ["a", "b"]
    assert NoneSelector().load_state(state, BANK, lm).select([1]).index == -1
    turned = PromptBank([BANK[1], BANK[0]])
    with pytest.raises(SelectorError, match="fitted on the prompts"):
        NoneSelector().load_state(state, turned, lm)


@pytest.mark.parametrize("selector", [StaticSelector(), RouterSelector()])
def test_foreign_state(selector: Selector, tiny_lm: Any) -> None:
    lm = tiny_lm()
    for tensors in ({}, {"scores": torch.zeros(9), "weight": torch.zeros(9)}):
        with pytest.raises(SelectorError, match="not a state of selector"):
            selector.load_state(SelectorState({"prompts": ["a", "b"]}, tensors), BANK, lm)


def test_none_works_without_a_bank() -> None:
    [choice] = NoneSelector().select_batch([[5, 6]])
    assert (choice.index, choice.scores) == (-1, (1.0,))


@given(st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=30), st.integers(2, 5), st.integers(0, 9))
def test_equal_inputs_share_a_fold_and_folds_are_even(inputs: list[list[int]], count: int, seed: int) -> None:
    folds = Calibration(inputs).folds(count, seed).tolist()
    assert folds == Calibration(inputs).folds(count, seed).tolist()
    part = {tuple(ids): fold for ids, fold in zip(inputs, folds, strict=True)}
    assert all(part[tuple(ids)] == fold for ids, fold in zip(inputs, folds, strict=True))
    sizes = [list(part.values()).count(fold) for fold in range(count)]
    assert max(sizes) - min(sizes) <= 1
