from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import SelectorError
from idp.select import Calibration, OracleSelector

BANK = PromptBank([Prompt(name, text=name) for name in "abc"])


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=4, max_size=4), min_size=1, max_size=5))
def test_the_lowest_loss_wins_and_no_prompt_wins_ties(tiny_lm, rows):
    calibration = Calibration([[i] for i in range(len(rows))], torch.tensor(rows))
    oracle = OracleSelector().fit(BANK, tiny_lm(), calibration)
    for row, choice in zip(rows, oracle.select_batch(calibration.inputs), strict=True):
        assert -choice.score == -choice.scores[choice.index] == min(row)
        assert (choice.index == -1) == (row[-1] == min(row))
        assert [-score for score in choice.scores] == row
        if choice.index != -1:
            assert choice.index == row.index(min(row))


def test_equal_inputs_get_one_choice_by_their_mean_loss(tiny_lm):
    losses = torch.tensor([[0.0, 0.2, 1.0, 1.0], [1.0, 0.2, 1.0, 1.0]])
    oracle = OracleSelector().fit(BANK, tiny_lm(), Calibration([[5], [5]], losses))
    assert oracle.select([5]).index == 1
    assert oracle.select([5]).scores == pytest.approx((-0.5, -0.2, -1.0, -1.0))


def test_an_input_that_it_was_not_fitted_on_is_an_error(tiny_lm):
    oracle = OracleSelector().fit(BANK, tiny_lm(), Calibration([[5]], torch.zeros(1, 4)))
    assert oracle.select_batch([]) == []
    with pytest.raises(SelectorError, match="knows only the 1 inputs that it was fitted on, and not this one of 2"):
        oracle.select([5, 6])
