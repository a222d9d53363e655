"""The view of a layer shares the model's tensors and leaves the model as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from idp.errors import SelectorError
from idp.model.loaded import LanguageModel
from idp.select.layer_view import LayerView

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2", "qwen3"])
def test_the_model_stays_as_it_is(tiny_lm: Any, architecture: str, layer: int) -> None:
    lm = LanguageModel(copy.deepcopy(tiny_lm(architecture).model), tiny_lm().tokenizer, "own")
    modules, config = dict(lm.model.named_modules()), copy.deepcopy(lm.model.config.to_dict())
    implementation = lm.model.config._attn_implementation
    with torch.no_grad():
        before = lm.model(IDS).logits
        calls: list[int] = []
        handle = lm.model.get_decoder().register_forward_hook(lambda *_: calls.append(1))
        LayerView(lm, layer).project(lm.embed(IDS), torch.arange(4)[None])
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
    view = LayerView(lm)._decoder
    assert {parameter.data_ptr() for parameter in view.parameters()} <= own
    assert len(view.layers) == 1  # type: ignore[arg-type]
    assert len(lm.model.model.layers) == 2


def test_grouped_keys_are_repeated_in_the_models_order(tiny_lm: Any) -> None:
    lm = tiny_lm()
    seen = LayerView(lm).project(lm.embed(IDS), torch.arange(4)[None])
    assert seen.query.shape == seen.key.shape == (1, 4, 4, 8)
    assert torch.equal(seen.key[:, 0], seen.key[:, 1])
    assert not torch.equal(seen.key[:, 1], seen.key[:, 2])


def test_logits_are_capped_where_the_model_caps(tiny_lm: Any) -> None:
    lm = tiny_lm("gemma2", attn_logit_softcapping=0.5)
    seen = LayerView(lm).project(lm.embed(IDS), torch.arange(4)[None])
    assert seen.softcap == 0.5
    assert float(seen.logits(100 * seen.query, seen.key).abs().max()) <= 0.5


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_what_was_read_is_seen_as_if_it_stood_there(tiny_lm: Any, architecture: str) -> None:
    view, embeddings = LayerView(tiny_lm(architecture), 1), tiny_lm(architecture).embed(IDS)
    whole = view.project(embeddings, torch.arange(4)[None])
    key, below = view.read(embeddings[0, :3], 0)
    behind = view.project(embeddings[:, 3:], torch.tensor([[3]]), below)
    assert len(below) == 1
    torch.testing.assert_close(key, whole.key[0, :, :3], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(behind.query, whole.query[:, :, 3:], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(behind.key, whole.key[:, :, 3:], atol=1e-6, rtol=1e-5)


def test_embeddings_that_a_model_scales_in_place(tiny_lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    view, embeddings = LayerView(lm), lm.embed(IDS)
    before = embeddings.clone()
    forward = type(view._decoder).forward
    monkeypatch.setattr(
        type(view._decoder), "forward", lambda self, inputs_embeds, **rest: forward(
            self, inputs_embeds=inputs_embeds.mul_(2), **rest)
    )  # fmt: skip
    view.project(embeddings, torch.arange(4)[None])
    assert torch.equal(embeddings, before)


@pytest.mark.parametrize("layer", [-1, 2, 7])
def test_a_layer_that_is_not_there(tiny_lm: Any, layer: int) -> None:
    with pytest.raises(SelectorError, match=f"has 2 layers.* no layer {layer} to look at: choose 0 to 1"):
        LayerView(tiny_lm(), layer)


@pytest.mark.parametrize("architecture", ["bloom", "gpt_neo"])
def test_an_architecture_that_cannot_be_seen(tiny_lm: Any, architecture: str) -> None:
    lm = tiny_lm(architecture)
    with pytest.raises(SelectorError, match="cannot see attention layer 0 .* Use selector 'router'"):
        LayerView(lm).project(lm.embed(IDS), torch.arange(4)[None])


def test_a_model_that_takes_no_mask_for_each_query(tiny_lm: Any) -> None:
    with pytest.raises(SelectorError, match="can look at layer 0 only, not 1"):
        LayerView(tiny_lm("bloom"), 1)
