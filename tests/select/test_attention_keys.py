"""Prompts are seen by a layer as if each were alone, where the input finds them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from idp.model.loaded import LanguageModel
from idp.select.attention_keys import PromptKeys, prompt_keys
from idp.select.attention_scores import attention_scores

ROTARY = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt_neox"]
LEARNED = ["opt", "gpt2"]


def _perturbed(lm: LanguageModel, bank: Any, layer: int) -> tuple[PromptKeys, PromptKeys]:
    """Keys of a bank, and of the same one with another middle prompt."""
    embeddings = [lm.embed_prompt(prompt) for prompt in bank]
    return prompt_keys(lm, embeddings, layer), prompt_keys(lm, [embeddings[0], -embeddings[1], embeddings[2]], layer)


@pytest.mark.parametrize(("architecture", "passes"), [*((a, 1) for a in ROTARY), *((a, 3) for a in LEARNED)])
def test_one_pass_or_one_a_length(tiny_lm: Any, soft_bank: Any, architecture: str, passes: int) -> None:
    lm = tiny_lm(architecture)
    keys = prompt_keys(lm, [lm.embed_prompt(prompt) for prompt in soft_bank()])
    assert len(keys.starts) == passes
    assert sorted(i for members in keys.starts.values() for i in members) == [0, 1, 2]


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_prompt_sees_only_itself(tiny_lm: Any, soft_bank: Any, architecture: str, layer: int) -> None:
    """Methods 1.6, item 4."""
    before, after = _perturbed(tiny_lm(architecture), soft_bank(), layer)
    others = torch.tensor([0, 1, 2, 8, 9, 10, 11])
    assert torch.equal(before.keys[:, others], after.keys[:, others])
    assert not torch.isclose(before.keys[:, 3:8], after.keys[:, 3:8]).all()
    assert len(before.below) == layer
    for old, new in zip(before.below, after.below, strict=True):
        assert all(torch.equal(a[:, :, others], b[:, :, others]) for a, b in zip(old, new, strict=True))


def test_what_is_read_of_the_first_layer_depends_on_no_other_prompt(tiny_lm: Any, soft_bank: Any) -> None:
    """A perturbed prompt changes the scale of the others' attention at each token, and not their ratio."""
    lm = tiny_lm()

    def scored(keys: PromptKeys) -> Tensor:
        seen = keys.project(lm.embed(torch.tensor([[5]])), 5)
        one = torch.ones(1, 1, dtype=torch.bool)
        logits = attention_scores(seen, keys.keys, keys.lengths, one, "logit_mean")
        assert not torch.allclose(attention_scores(seen, keys.keys, keys.lengths, one)[0, 1], torch.tensor(0.0))
        return logits[0, [0, 2]]

    before, after = _perturbed(lm, soft_bank(), 0)
    torch.testing.assert_close(scored(before), scored(after))
