"""What every installed selector has to bear: a bank of one, and ties."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from idp.bank import Prompt, PromptBank
from idp.select import Calibration
from idp.select.registry import get_selector, selector_names

ELSEWHERE = ("embedding", "oracle", "smop")  # need a sentence model, the items, a bank of their own: their own tests
NAMES = [name for name in selector_names() if name not in ELSEWHERE]
INPUTS = [[100 + n % 7, 100 + n % 5, 100 + n % 3] for n in range(30)]


def _made(name: str, lm: Any, bank: PromptBank, losses: torch.Tensor) -> Any:
    return get_selector(name).fit(bank, lm, Calibration(INPUTS, losses))


@pytest.mark.parametrize("name", NAMES)
def test_a_bank_of_one(tiny_lm: Any, name: str) -> None:
    bank = PromptBank([Prompt("only", text="one two")])
    losses = torch.rand(30, 2, generator=torch.Generator().manual_seed(0))
    selector = _made(name, tiny_lm(), bank, losses)
    for choice in selector.select_batch(INPUTS[:4]):
        assert choice.index in (0, -1)
        assert len(choice.scores) == 2 and choice.scores[choice.index] == choice.score
    again = get_selector(name).load_state(selector.state(), bank, tiny_lm())
    assert again.select_batch(INPUTS[:4]) == selector.select_batch(INPUTS[:4])


@pytest.mark.parametrize("name", ["attention", "keys", "likelihood", "oracle", "router", "static"])
def test_ties_go_to_the_first(tiny_lm: Any, name: str) -> None:
    twins = PromptBank([Prompt("one", text="one two"), Prompt("other", text="one two")])
    losses = torch.tensor([[0.2, 0.2, 0.9]]).repeat(30, 1)
    assert {choice.index for choice in _made(name, tiny_lm(), twins, losses).select_batch(INPUTS[:4])} <= {0, -1}
