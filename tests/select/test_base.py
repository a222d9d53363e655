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
        ({"inputs": [[1]], "options": []}, "1 inputs but 0 options"),
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


def test_state_of_other_prompts_of_the_same_names_or_of_another_version_is_refused(tiny_lm: Any) -> None:
    lm = tiny_lm()
    state = NoneSelector().fit(BANK, lm).state()
    namesakes = PromptBank([Prompt("a", text="one"), Prompt("b", text="three")])
    with pytest.raises(SelectorError, match="prompts of the same names, but other ones"):
        NoneSelector().load_state(state, namesakes, lm)
    newer = SelectorState({**state.config, "version": 2}, state.tensors)
    with pytest.raises(SelectorError, match="state of 'none' has version 2, and this idp reads 1"):
        NoneSelector().load_state(newer, BANK, lm)
    old = SelectorState({"prompts": ["a", "b"]})  # of before states said so much
    assert NoneSelector().load_state(old, BANK, lm).select([1]).index == -1


def test_a_bank_vouches_for_its_own_states(tiny_lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    bank = BANK.with_selector("none", NoneSelector().fit(BANK, lm).state())
    monkeypatch.setattr(Prompt, "digest", property(lambda prompt: pytest.fail("every prompt was read")))
    assert NoneSelector().load_state(bank.selectors["none"], bank, lm).select([1]).index == -1


def test_what_selectors_say_that_they_cost(tiny_lm: Any) -> None:
    lm = tiny_lm()
    calibration = Calibration([[5], [6]], torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]]))
    static, router = (kind().fit(BANK, lm, calibration).cost for kind in (StaticSelector, RouterSelector))
    assert (static.forwards, static.parameters, static.labels, static.answers) == (0, 3, True, False)
    assert (router.forwards, router.parameters, router.labels) == (
        0,
        3 * (lm.hidden_size + 1) + 2 * lm.hidden_size,
        True,
    )
    assert NoneSelector().fit(BANK, lm).cost.labels is False


def test_rows_of_a_calibration() -> None:
    whole = Calibration([[1], [2], [3]], torch.arange(6).reshape(3, 2), ["a", "b", "c"], [0, -1, 0], [(), ((4,),), ()])
    part = whole.rows([2, 1])
    assert (part.inputs, part.groups, part.hints, part.options) == ([[3], [2]], ["c", "b"], [0, -1], [(), ((4,),)])
    assert part.losses is not None and part.losses.tolist() == [[4, 5], [2, 3]]
    bare = Calibration([[1], [2]]).rows([0])
    assert (bare.inputs, bare.losses, bare.groups, bare.hints, bare.options) == ([[1]], None, None, None, None)


def test_most_selectors_do_not_look_at_answers(tiny_lm: Any) -> None:
    selector = RandomSelector().fit(BANK, tiny_lm())
    assert selector.select_among([[1], [2]], [((3,), (4,)), ()]) == selector.select_batch([[1], [2]])


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


@given(st.lists(st.lists(st.integers(0, 2), max_size=2), min_size=1, max_size=20))
def test_different_inputs_come_once_with_their_mean_losses(inputs: list[list[int]]) -> None:
    losses = torch.rand(len(inputs), 3, generator=torch.Generator().manual_seed(0))
    found = Calibration(inputs, losses, hints=[*range(len(inputs))]).distinct()
    assert found.inputs == [ids for row, ids in enumerate(inputs) if ids not in inputs[:row]]
    assert found.losses is not None and found.hints == [inputs.index(list(ids)) for ids in found.inputs]
    for ids, row in zip(found.inputs, found.losses, strict=True):
        same = [place for place, other in enumerate(inputs) if other == ids]
        torch.testing.assert_close(row, losses[same].double().mean(dim=0))
    assert Calibration(inputs).distinct().losses is None
