"""One softmax over all prompts and the input: the rule itself, on queries and keys of a tiny model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from idp.select.attention_keys import prompt_keys
from idp.select.attention_scores import attention_scores
from idp.select.layer_view import LayerView

LENGTHS = (3, 5, 4)


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_attention_sums_to_one(tiny_lm: Any, soft_bank: Any, attended: Any, architecture: str) -> None:
    """Methods 1.6, item 5: all prompts and the input share one softmax."""
    lm = tiny_lm(architecture)
    layer = LayerView(lm)
    keys = prompt_keys(lm, [lm.embed_prompt(prompt) for prompt in soft_bank()])
    start, _ = next(iter(keys.starts.items()))
    seen = layer.project(lm.embed(torch.tensor([[5, 6, 7]])), torch.arange(start, start + 3)[None])
    counted = torch.ones(1, 3, dtype=torch.bool)
    # The input itself is scored as if it were a prompt that only its last token sees whole.
    mass = attention_scores(seen, keys.keys, keys.lengths, counted, "joint_mass")  # (1, m)
    found = attended(lm, soft_bank(), [5, 6, 7], start, architecture == "llama")  # (H, 3, N + 3)
    to_input = found[..., sum(LENGTHS) :].sum(dim=-1).mean()
    assert float(mass.sum() + to_input) == pytest.approx(1.0, abs=1e-5)


def test_ratios_within_a_prompt_are_those_of_the_prompt_alone(tiny_lm: Any, soft_bank: Any) -> None:
    """Methods 1.6, item 5: the other prompts change the scale only. Each token is scored as a prompt of its own."""
    lm = tiny_lm()
    layer = LayerView(lm)
    keys = prompt_keys(lm, [lm.embed_prompt(prompt) for prompt in soft_bank()])
    seen = layer.project(lm.embed(torch.tensor([[5]])), torch.tensor([[5]]))
    one = torch.ones(1, 1, dtype=torch.bool)
    for head in range(4):
        single = copy.copy(seen)
        object.__setattr__(single, "query", seen.query[:, head : head + 1])
        object.__setattr__(single, "key", seen.key[:, head : head + 1])
        own = keys.keys[head : head + 1]
        joint = attention_scores(single, own, [1] * 12, one)[0, :3]
        alone = attention_scores(single, own[:, :3], [1] * 3, one)[0]
        torch.testing.assert_close(joint / joint.sum(), alone / alone.sum(), atol=1e-6, rtol=1e-5)


def test_large_keys_along_the_mean_query_win(tiny_lm: Any, soft_bank: Any) -> None:
    """Methods 1.6, item 7."""
    lm = tiny_lm()
    layer = LayerView(lm)
    prompts = prompt_keys(lm, [lm.embed_prompt(prompt) for prompt in soft_bank()])
    ids = torch.tensor([[5, 6, 7]])
    seen = layer.project(lm.embed(ids), torch.arange(5, 8)[None])
    counted = torch.ones_like(ids, dtype=torch.bool)
    for i, part in enumerate(torch.split(prompts.keys, list(LENGTHS), dim=1)):
        keys = [1000 * seen.query.mean(dim=2)[0][:, None].expand_as(part) if j == i else other
                for j, other in enumerate(torch.split(prompts.keys, list(LENGTHS), dim=1))]  # fmt: skip
        assert attention_scores(seen, torch.cat(keys, dim=1), LENGTHS, counted).argmax() == i
