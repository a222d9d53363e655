"""Always the same choice: none, or the best on the calibration inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from idp.bank import Prompt, PromptBank
from idp.select import Calibration, NoneSelector, StaticSelector

BANK = PromptBank([Prompt("a", text="one"), Prompt("b", text="two")])
INPUTS = [[1], [2], [3]]


def test_none(tiny_lm: Any) -> None:
    choices = NoneSelector().fit(BANK, tiny_lm()).select_batch([[1], []])
    assert [choice.index for choice in choices] == [-1, -1]
    assert choices[0].scores == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(("best", "index"), [(0, 0), (1, 1), (2, -1)])
def test_static_takes_the_lowest_mean_loss(tiny_lm: Any, best: int, index: int) -> None:
    losses = torch.ones(3, 3)
    losses[:, best] = torch.tensor([0.0, 0.0, 1.5])
    choices = StaticSelector().fit(BANK, tiny_lm(), Calibration(INPUTS, losses)).select_batch([[7], []])
    assert [choice.index for choice in choices] == [index, index]
    assert choices[0].score == pytest.approx(-0.5)


def test_static_ties_go_to_the_smallest_index(tiny_lm: Any) -> None:
    selector = StaticSelector().fit(BANK, tiny_lm(), Calibration(INPUTS, torch.ones(3, 3)))
    assert selector.select([1]).index == 0


def test_static_weighs_groups_alike(tiny_lm: Any) -> None:
    losses = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [4.0, 1.0, 2.0]])
    plain = StaticSelector().fit(BANK, tiny_lm(), Calibration(INPUTS, losses[[0, 0, 0]]))
    grouped = StaticSelector().fit(BANK, tiny_lm(), Calibration(INPUTS, losses, ["x", "x", "y"]))
    assert plain.select([1]).index == 0
    assert grouped.select([1]).index == 1
    assert grouped.select([1]).scores == (-2.0, -1.0, -2.0)


def test_static_state(tiny_lm: Any) -> None:
    lm = tiny_lm()
    fitted = StaticSelector().fit(BANK, lm, Calibration(INPUTS, torch.tensor([[2.0, 1.0, 3.0]]).expand(3, 3)))
    loaded = StaticSelector().load_state(fitted.state(), BANK, lm)
    assert loaded.select_batch(INPUTS) == fitted.select_batch(INPUTS)
