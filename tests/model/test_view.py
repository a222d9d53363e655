from __future__ import annotations

import pytest
import torch

from idp.errors import ModelError
from idp.model.view import decoder_layers, num_layers, shallow

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2", "gemma2", "bloom"])
def test_a_view_of_all_layers_is_the_decoder(tiny_lm, architecture):
    lm = tiny_lm(architecture)
    with torch.no_grad():
        whole = lm.model.get_decoder()(input_ids=IDS, use_cache=False).last_hidden_state
        seen = shallow(lm, num_layers(lm))(input_ids=IDS, use_cache=False).last_hidden_state
        first = shallow(lm, 1)(input_ids=IDS, use_cache=False).last_hidden_state
    assert torch.equal(seen, whole)
    assert first.shape == whole.shape and not torch.allclose(first, whole)


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2", "bloom"])
def test_the_layers_are_the_models_own_in_their_order(tiny_lm, architecture):
    lm = tiny_lm(architecture)
    ran = []
    handles = [layer.register_forward_hook(lambda module, *_: ran.append(module)) for layer in decoder_layers(lm)]
    lm.model(IDS)
    for handle in handles:
        handle.remove()
    assert ran == decoder_layers(lm)
    assert len(ran) == num_layers(lm) == 2


def test_what_stands_behind_the_first_layer_is_the_norm(tiny_lm):
    lm = tiny_lm()
    with torch.no_grad():
        behind = lm.model(IDS, output_hidden_states=True).hidden_states[1]
        torch.testing.assert_close(shallow(lm, 1)(input_ids=IDS).last_hidden_state, lm.model.model.norm(behind))


def test_another_attention_is_that_of_the_last_layer_alone(tiny_lm):
    lm = tiny_lm()
    own = lm.model.config._attn_implementation
    view = shallow(lm, 2, "eager")
    assert [layer.self_attn.config._attn_implementation for layer in view.layers] == [own, "eager"] == ["sdpa", "eager"]
    assert view.config._attn_implementation == lm.model.config._attn_implementation == own


def test_the_model_stays_as_it_is(tiny_lm):
    lm = tiny_lm()
    before = lm.model(IDS).logits
    view = shallow(lm, 1)
    assert num_layers(lm) == len(lm.model.model.layers) == 2
    assert {id(parameter) for parameter in view.parameters()} < {id(parameter) for parameter in lm.model.parameters()}
    assert torch.equal(lm.model(IDS).logits, before)


@pytest.mark.parametrize("layers", [0, 3, -1])
def test_layers_that_are_not_there(tiny_lm, layers):
    with pytest.raises(ModelError, match="tiny-llama has 2 layers, so there is no view of its first"):
        shallow(tiny_lm(), layers)
