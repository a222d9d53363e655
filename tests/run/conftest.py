"""What the tests of the run layer share: a mixed bank, a selector without a mind, and the plain computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import pytest
import torch
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.model.loaded import LanguageModel
from idp.select.base import Selection, Selector

if TYPE_CHECKING:
    MixedBank = Callable[[LanguageModel], PromptBank]
    PlainLogits = Callable[[LanguageModel, Prompt | None, Sequence[int]], Tensor]


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
def mixed_bank() -> MixedBank:
    """Text and soft prompts of different lengths, at the scale of the model's own embeddings."""
    made: dict[int, PromptBank] = {}

    def make(lm: LanguageModel) -> PromptBank:
        width = lm.embed(torch.zeros(1, dtype=torch.long)).shape[-1]
        if width not in made:
            generator = torch.Generator().manual_seed(0)
            soft = [0.3 * torch.randn(n, width, generator=generator) for n in (1, 5, 11)]
            prompts = [Prompt(f"soft-{len(e)}", embedding=e) for e in soft]
            made[width] = PromptBank([Prompt("text", text="Answer with a fact: "), *prompts])
        return made[width]

    return make


@pytest.fixture(scope="session")
def plain_logits() -> PlainLogits:
    """Logits `(T, V)` of an input behind a prompt: one row, no cache, no mask, embeddings in."""

    def run(lm: LanguageModel, prompt: Prompt | None, ids: Sequence[int]) -> Tensor:
        embeds = lm.embed(torch.tensor([list(ids)]))  # (1, T, d)
        if prompt is not None:
            embeds = torch.cat([lm.embed_prompt(prompt)[None], embeds], dim=1)
        with torch.no_grad():
            logits: Tensor = lm.model(inputs_embeds=embeds, use_cache=False).logits[0, -len(ids) :]
        return logits

    return run
