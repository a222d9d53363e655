from __future__ import annotations

import pytest
import torch

from idp.errors import ModelError
from idp.model.view import shallow
from idp.select import states
from idp.select.states import context_states, shallow_states

CONTEXTS = [(1, 5, 9), (1, 7), (1, 5, 9, 40, 41), (1, 8, 9), (1, 7)]


@pytest.mark.parametrize("tokens", [1, 6, 4096])
def test_each_context_has_the_middle_layers_state_at_its_last_token(tiny_lm, monkeypatch, tokens):
    monkeypatch.setattr(states, "_TOKENS_A_BATCH", tokens)
    lm = tiny_lm()
    found = context_states(lm, CONTEXTS)
    for context, state in zip(CONTEXTS, found, strict=True):
        layers = lm.model(torch.tensor([context]), output_hidden_states=True).hidden_states
        torch.testing.assert_close(state.float(), layers[len(layers) // 2][0, -1], rtol=1e-4, atol=1e-5)
    assert found.dtype == torch.float64 and not found.requires_grad


def test_the_order_of_the_contexts_does_not_matter(tiny_lm):
    lm = tiny_lm()
    turned = context_states(lm, CONTEXTS[::-1]).flip(0)
    torch.testing.assert_close(turned.float(), context_states(lm, CONTEXTS).float())  # computed in fp32


def test_no_contexts_no_states(tiny_lm):
    assert context_states(tiny_lm(), []).shape == (0, tiny_lm().hidden_size)


def test_states_that_are_no_numbers_are_refused(broken_lm):
    with pytest.raises(ModelError, match="broken computed"):
        context_states(broken_lm("model.layers.0.mlp.down_proj.weight", 0), CONTEXTS)


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2", "bloom"])
def test_states_of_the_first_layers_are_each_rows_own(tiny_lm, architecture):
    lm = tiny_lm(architecture)
    decoder = shallow(lm, 1)
    together = shallow_states(lm, decoder, CONTEXTS)
    for row, context in zip(together, CONTEXTS, strict=True):
        with torch.no_grad():
            alone = decoder(input_ids=torch.tensor([list(context)]), use_cache=False).last_hidden_state[0, -1]
        torch.testing.assert_close(row, alone.double(), atol=1e-5, rtol=1e-5)
    assert shallow_states(lm, decoder, []).shape == (0, lm.hidden_size)


def test_broken_first_layers_are_noticed(broken_lm):
    broken = broken_lm("model.layers.0.mlp.down_proj.weight", 0)
    with pytest.raises(ModelError, match="broken computed"):
        shallow_states(broken, shallow(broken, 1), CONTEXTS)
