from __future__ import annotations

import copy

import pytest
import torch

from idp.errors import ModelError
from idp.model.gradients import has_gradients, require_gradients
from idp.model.loaded import LanguageModel


@pytest.mark.parametrize("architecture", ["llama", "opt", "bloom"])
def test_gradients_reach_the_embeddings_of_plain_models(tiny_lm, architecture):
    lm = tiny_lm(architecture)
    require_gradients(lm)
    with torch.no_grad():
        assert has_gradients(LanguageModel(lm.model, lm.tokenizer, "asked without gradients"))


def test_what_only_the_residual_stream_carries_is_not_enough(tiny_lm):
    lm = tiny_lm()
    broken = LanguageModel(copy.deepcopy(lm.model), lm.tokenizer, "packed")
    for layer in broken.model.model.layers:
        for part in (layer.self_attn.k_proj, layer.self_attn.v_proj, layer.self_attn.q_proj):
            part.forward = torch.no_grad()(part.forward)
    assert not has_gradients(broken)
    with pytest.raises(ModelError, match="no gradient reaches the input embeddings of packed"):
        require_gradients(broken)
