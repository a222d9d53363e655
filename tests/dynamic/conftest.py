"""What the tests of dynamic models share: a selector without a mind, and prompts of one length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.model.loaded import LanguageModel
from idp.select.base import Selection, Selector


class ByLength(Selector):
    """Chooses by the length of an input: different rows of a batch get different prompts."""

    name: ClassVar[str] = "by-length"

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        arms = len(self.bank) + 1
        return [Selection(len(ids) % arms - 1, 1.0, (1.0,) * arms) for ids in inputs]


@pytest.fixture(scope="session")
def by_length() -> type[Selector]:
    return ByLength


@pytest.fixture(scope="session")
def lm(tiny_lm: Callable[..., LanguageModel]) -> LanguageModel:
    return tiny_lm()


@pytest.fixture(scope="session")
def equal_bank(lm: LanguageModel) -> PromptBank:
    """Three soft prompts of four tokens."""
    generator = torch.Generator().manual_seed(0)
    drawn = [0.3 * torch.randn(4, lm.hidden_size, generator=generator) for _ in range(3)]
    return PromptBank([Prompt(name, embedding=embedding) for name, embedding in zip("abc", drawn, strict=True)])
