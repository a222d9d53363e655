"""Tests of idp.model.support: models are built tiny, of the real architectures."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.dynamic.wrap import wrap
from idp.errors import ModelError
from idp.model.loaded import LanguageModel
from idp.model.support import why_no_prompts
from idp.run.store import PrefixStore

TinyLM = Callable[..., Any]
BANK = PromptBank([Prompt("text", text="Answer: ")])
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 384,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def _model(kind: str, **fields: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(SIZES | fields)))


def _recurrent(kind: str) -> Any:
    fields: dict[str, dict[str, Any]] = {
        "mamba": {"state_size": 4},
        "falcon_mamba": {"state_size": 4},
        "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 16},
        "jamba": {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
        "lfm2": {"layer_types": ["conv", "full_attention"]},
        "qwen3_next": {
            "layer_types": ["linear_attention", "full_attention"],
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    }
    return _model(kind, **fields[kind])


def _per_layer(kind: str, width: int = 8) -> Any:
    return _model(
        kind,
        hidden_size_per_layer_input=width,
        vocab_size_per_layer_input=384,
        layer_types=["sliding_attention", "full_attention"],
        num_kv_shared_layers=0,
        **({"laurel_rank": 4, "activation_sparsity_pattern": [0.0, 0.0]} if kind == "gemma3n_text" else {}),
    )


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("t5", {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}),
        ("bart", {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "decoder_start_token_id": 2}),
    ],
)
def test_an_encoder_decoder_is_refused_at_once(tiny_lm: TinyLM, kind: str, fields: dict[str, Any]) -> None:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    special = {name: SIZES[name] for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **(special | fields)))
    with pytest.raises(ModelError, match=r"both \(\w+ForConditionalGeneration\) is an encoder-decoder.*decoder-only"):
        LanguageModel(model, tiny_lm().tokenizer, "both")
    with pytest.raises(ModelError, match="is an encoder-decoder"):
        wrap(model, tiny_lm().tokenizer, BANK, "random")


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba", "recurrent_gemma", "jamba", "lfm2", "qwen3_next"])
def test_a_recurrent_state_takes_no_prompt(tiny_lm: TinyLM, kind: str) -> None:
    model = _recurrent(kind)
    lm = LanguageModel(model, tiny_lm().tokenizer, "stateful")
    message = (
        r"^stateful \(\w+\) (keeps a recurrent state|caches more than the keys and values).*attention in all layers\.$"
    )
    with pytest.raises(ModelError, match=message):
        lm.embed_prompt(BANK[0])
    with pytest.raises(ModelError, match="selector 'none'"):
        _ = PrefixStore(lm, BANK)[0]
    with pytest.raises(ModelError, match=r"\w+ForCausalLM\) (keeps|caches)"):
        wrap(model, lm.tokenizer, BANK, "random")


@pytest.mark.parametrize("kind", ["gemma3n_text", "gemma4_text"])
def test_per_layer_embeddings_take_no_prompt(tiny_lm: TinyLM, kind: str) -> None:
    model = _per_layer(kind)
    lm = LanguageModel(model, tiny_lm().tokenizer, "layered")
    with pytest.raises(ModelError, match=r"^layered .*looks every token up again.*_input=8\).*without per-layer"):
        lm.embed_prompt(BANK[0])
    with pytest.raises(ModelError, match="looks every token up again"):
        wrap(model, lm.tokenizer, BANK, "random")


def test_per_layer_embeddings_are_why_a_prompt_could_not_be_right() -> None:
    model = _per_layer("gemma3n_text").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # a fresh model multiplies what it looks up by nought
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    ids = torch.tensor([[5, 6, 7]])  # (1, T)
    embedded = model.get_input_embeddings()(ids)  # (1, T, d)
    with torch.no_grad():
        assert not torch.allclose(model(inputs_embeds=embedded).logits, model(input_ids=ids).logits, atol=1e-3)


def test_the_same_family_without_per_layer_embeddings_is_welcome() -> None:
    assert why_no_prompts(_per_layer("gemma4_text", width=0), "plain") is None


@pytest.mark.parametrize("make", [lambda: _recurrent("mamba"), lambda: _per_layer("gemma3n_text")])
def test_without_prompts_they_run(tiny_lm: TinyLM, make: Callable[[], Any]) -> None:
    model = make()
    prompted = wrap(model, tiny_lm().tokenizer, selector="none")
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])  # (B, T)
    assert torch.equal(prompted.generate(ids, max_new_tokens=3), model.generate(ids, max_new_tokens=3))


ARCHITECTURES = "llama opt gpt2 bloom gpt_neox mistral qwen2 qwen3 phi3 gemma2 gemma3".split()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_supported_is_not_refused(tiny_lm: TinyLM, architecture: str) -> None:
    assert why_no_prompts(tiny_lm(architecture).model, architecture) is None


def test_a_config_of_another_shape_is_left_to_the_compiler(tiny_lm: TinyLM) -> None:
    model = copy.copy(tiny_lm().model)
    model.config = copy.deepcopy(model.config)
    del model.config.num_hidden_layers
    assert why_no_prompts(model, "odd") is None
