from __future__ import annotations

import pytest

from idp.compress.layers import linear_layers
from idp.compress.recipe import find_recipe
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


def test_a_model_with_weights_that_are_no_matrices_is_refused(tiny_tokenizer):
    from transformers import MambaConfig, MambaForCausalLM, MixtralConfig, MixtralForCausalLM

    sizes = {"vocab_size": 384, "hidden_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 16, "num_local_experts": 2}
    experts, state_space = MixtralForCausalLM(MixtralConfig(**sizes, **heads)), MambaForCausalLM(MambaConfig(**sizes))
    with pytest.raises(RecipeError, match=r"weights that are no matrices \(.*experts"):
        linear_layers(LanguageModel(experts, tiny_tokenizer, "experts"))
    with pytest.raises(RecipeError, match=r"weights that are no matrices \(.*conv1d"):
        linear_layers(LanguageModel(state_space, tiny_tokenizer, "states"))


def test_a_model_whose_layers_cannot_be_packed_can_be_pruned_and_not_quantised(tiny_tokenizer):
    from transformers import FalconConfig, FalconForCausalLM

    config = FalconConfig(vocab_size=384, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    layers = linear_layers(LanguageModel(FalconForCausalLM(config), tiny_tokenizer, "falcon"))
    assert layers.unpackable == "FalconLinear"
    assert find_recipe("wanda").fill(layers)
    with pytest.raises(RecipeError, match="FalconLinear, which compressed-tensors does not pack"):
        find_recipe("gptq").fill(layers)
