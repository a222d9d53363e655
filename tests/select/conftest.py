"""What the tests of attention share: prompts of three lengths, and the attention of a whole model over them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from idp.bank import Prompt, PromptBank
from idp.model.loaded import LanguageModel


def _soft_bank(order: Sequence[int] = (0, 1, 2)) -> PromptBank:
    lengths = (3, 5, 4)
    embeddings = [torch.randn(n, 32, generator=torch.Generator().manual_seed(i)) for i, n in enumerate(lengths)]
    return PromptBank([Prompt(f"p{i}", embedding=embeddings[i]) for i in order])


@pytest.fixture(scope="session")
def soft_bank() -> Any:
    """A factory: a bank of prompts of 3, 5 and 4 tokens, in the order asked for."""
    return _soft_bank


@pytest.fixture(scope="session")
def attended() -> Any:
    """A layer's attention `(H, T, N + T)` of an input in one eager pass of all layers over `[P_1; ..; P_m; X]`."""

    def run(
        lm: LanguageModel, bank: PromptBank, ids: Sequence[int], start: int, right_aligned: bool, layer: int = 0
    ) -> Tensor:
        prompts = [lm.embed_prompt(prompt) for prompt in bank]
        lengths = [len(prompt) for prompt in prompts]
        owner = torch.tensor([i for i, n in enumerate(lengths) for _ in range(n)] + [-1] * len(ids))  # (N + T,)
        offsets = [start - n if right_aligned else 0 for n in lengths]
        places = [torch.arange(n) + offset for n, offset in zip(lengths, offsets, strict=True)]
        allowed = ((owner[:, None] == owner) | (owner[:, None] == -1)).tril()  # (N + T, N + T)
        model = copy.deepcopy(lm.model)
        model.set_attn_implementation("eager")
        with torch.no_grad():
            output = model(
                inputs_embeds=torch.cat([*prompts, lm.embed(torch.tensor(ids))])[None],  # (1, N + T, d)
                attention_mask=torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo().min)[None, None],
                position_ids=torch.cat([*places, torch.arange(len(ids)) + start])[None],
                output_attentions=True,
                use_cache=False,
            )
        attention: Tensor = output.attentions[layer][0, :, -len(ids) :]
        return attention

    return run
