"""The view of the first layer shares the model's tensors and leaves the model as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from idp.errors import SelectorError
from idp.model.loaded import LanguageModel
from idp.select.layer0 import LayerZero

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2", "qwen3"])
def test_the_model_stays_as_it_is(tiny_lm: Any, architecture: str) -> None:
    lm = LanguageModel(copy.deepcopy(tiny_lm(architecture).model), tiny_lm().tokenizer, "own")
    modules, config = dict(lm.model.named_modules()), copy.deepcopy(lm.model.config.to_dict())
    implementation = lm.model.config._attn_implementation
    with torch.no_grad():
        before = lm.model(IDS).logits
        calls: list[int] = []
        handle = lm.model.get_decoder().register_forward_hook(lambda *_: calls.append(1))
        LayerZero(lm).project(lm.embed(IDS), torch.arange(4)[None])
        handle.remove()
        after = lm.model(IDS).logits
    assert torch.equal(before, after)
    assert not calls
    assert lm.model.config.to_dict() == config
    assert lm.model.config._attn_implementation == implementation
    assert {name: id(module) for name, module in lm.model.named_modules()} == {
        name: id(module) for name, module in modules.items()
    }


def test_parameters_are_shared(tiny_lm: Any) -> None:
    lm = tiny_lm()
    own = {parameter.data_ptr() for parameter in lm.model.parameters()}
    view = LayerZero(lm)._decoder
    assert {parameter.data_ptr() for parameter in view.parameters()} <= own
    assert len(view.layers) == 1  # type: ignore[arg-type]
    assert len(lm.model.model.layers) == 2


def test_grouped_keys_are_repeated_in_the_models_order(tiny_lm: Any) -> None:
    lm = tiny_lm()
    seen = LayerZero(lm).project(lm.embed(IDS), torch.arange(4)[None])
    assert seen.query.shape == seen.key.shape == (1, 4, 4, 8)
    assert torch.equal(seen.key[:, 0], seen.key[:, 1])
    assert not torch.equal(seen.key[:, 1], seen.key[:, 2])


def test_logits_are_capped_where_the_model_caps(tiny_lm: Any) -> None:
    lm = tiny_lm("gemma2", attn_logit_softcapping=0.5)
    seen = LayerZero(lm).project(lm.embed(IDS), torch.arange(4)[None])
    assert seen.softcap == 0.5
    assert float(seen.logits(100 * seen.query, seen.key).abs().max()) <= 0.5


@pytest.mark.parametrize("architecture", ["bloom"])
def test_an_architecture_that_cannot_be_seen(tiny_lm: Any, architecture: str) -> None:
    lm = tiny_lm(architecture)
    with pytest.raises(SelectorError, match="Use selector 'router'"):
        LayerZero(lm).project(lm.embed(IDS), torch.arange(4)[None])
