from __future__ import annotations

import pytest

from idp.compress.layers import linear_layers
from idp.errors import RecipeError
from idp.model.loaded import LanguageModel


@pytest.mark.parametrize(
    ("architecture", "head", "count"), [("llama", "lm_head", 14), ("opt", "lm_head", 12), ("gpt_neox", "lm_head", 8)]
)
def test_all_but_the_head_are_found(tiny_lm, architecture, head, count):
    layers = linear_layers(tiny_lm(architecture))
    assert layers.head == head
    assert len(layers.names) == len(layers.widths) == count
    assert head not in layers.names
    assert set(layers.widths) == {32, 64} if architecture == "llama" else layers.widths


def test_a_model_without_linear_layers_cannot_be_compressed(tiny_lm):
    with pytest.raises(RecipeError, match="no torch.nn.Linear layers"):
        linear_layers(tiny_lm("gpt2"))


def test_a_mixture_of_experts_is_refused(tiny_tokenizer):
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(vocab_size=384, num_key_value_heads=2, num_local_experts=2, **sizes)
    with pytest.raises(RecipeError, match="keeps its experts in stacks"):
        linear_layers(LanguageModel(MixtralForCausalLM(config), tiny_tokenizer, "experts"))
