"""Tests of idp.model.fingerprint."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from idp.bank.fingerprint import Fingerprint
from idp.model.fingerprint import fingerprint, tokenizer_hash, weights_hash

TinyLM = Callable[..., Any]


def test_the_fields_describe_the_model(tiny_lm: TinyLM) -> None:
    lm = tiny_lm()
    found = fingerprint(lm.model, lm.tokenizer)
    assert (found.architecture, found.hidden_size, found.vocab_size) == ("LlamaForCausalLM", 32, 384)
    assert len(found.tokenizer) == len(found.weights) == 16
    assert Fingerprint.from_dict(found.to_dict()) == found


def test_the_same_model_has_the_same_fingerprint(tiny_lm: TinyLM) -> None:
    lm = tiny_lm()
    assert fingerprint(copy.deepcopy(lm.model), lm.tokenizer) == fingerprint(lm.model, lm.tokenizer)


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2", "qwen2", "mistral"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_type_it_is_loaded_in_does_not_matter(tiny_lm: TinyLM, architecture: str, dtype: torch.dtype) -> None:
    lm = tiny_lm(architecture)
    assert weights_hash(copy.deepcopy(lm.model).to(dtype)) == weights_hash(lm.model)


def test_other_weights_have_another_hash(tiny_lm: TinyLM) -> None:
    assert weights_hash(tiny_lm(seed=1).model) != weights_hash(tiny_lm().model)


def test_pruning_changes_the_hash(tiny_lm: TinyLM) -> None:
    pruned = copy.deepcopy(tiny_lm().model)
    weight = pruned.model.layers[1].mlp.down_proj.weight  # (d, f)
    weight[weight.abs() < weight.abs().median()] = 0
    assert weights_hash(pruned) != weights_hash(tiny_lm().model)


def test_rounding_to_few_bits_changes_the_hash(tiny_lm: TinyLM) -> None:
    quantised = {}
    for bits in (3, 4):
        model = copy.deepcopy(tiny_lm().model)
        for layer in model.model.layers:
            weight = layer.self_attn.q_proj.weight  # (d, d)
            step = weight.abs().max() / (2 ** (bits - 1) - 1)
            weight.copy_((weight / step).round() * step)
        quantised[bits] = weights_hash(model)
    assert len({quantised[3], quantised[4], weights_hash(tiny_lm().model)}) == 3


def test_whole_numbers_count_as_they_are(tiny_lm: TinyLM) -> None:
    hashes = set()
    for value in (1, 2):
        model = copy.deepcopy(tiny_lm().model)
        model.register_buffer("packed", torch.full((4,), value, dtype=torch.int32))
        hashes.add(weights_hash(model))
    assert len(hashes) == 2


def test_a_model_that_unpacks_itself_at_its_first_pass_keeps_its_hash(tiny_lm: TinyLM) -> None:
    model = copy.deepcopy(tiny_lm().model)
    model.register_buffer("packed", torch.ones(4, dtype=torch.int32))

    def unpack(module: torch.nn.Module, *_: object) -> None:
        module.packed = torch.zeros(2)

    model.register_forward_pre_hook(unpack)
    first = weights_hash(model)
    assert weights_hash(model) == first


def test_the_random_state_is_left_alone(tiny_lm: TinyLM) -> None:
    lm = tiny_lm()
    before = torch.random.get_rng_state()
    fingerprint(lm.model, lm.tokenizer)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_vocabulary_has_another_hash(tiny_tokenizer: Any) -> None:
    other = copy.deepcopy(tiny_tokenizer)
    other.add_tokens(["<new>"])
    assert tokenizer_hash(other) != tokenizer_hash(tiny_tokenizer)


def test_another_end_of_text_has_another_hash(tiny_tokenizer: Any) -> None:
    other = copy.deepcopy(tiny_tokenizer)
    other.eos_token = "<s>"
    assert tokenizer_hash(other) != tokenizer_hash(tiny_tokenizer)


def test_the_padding_token_does_not_count(tiny_tokenizer: Any) -> None:
    other = copy.deepcopy(tiny_tokenizer)
    other.pad_token = other.eos_token
    assert tokenizer_hash(other) == tokenizer_hash(tiny_tokenizer)
