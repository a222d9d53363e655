"""Tests of idp.model.loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from idp.bank.prompt import Prompt
from idp.bank.vectors import PromptVector
from idp.errors import BankError, ModelError
from idp.model.fingerprint import fingerprint
from idp.model.loaded import LanguageModel

TinyLM = Callable[..., Any]
ARCHITECTURES = ["llama", "opt", "gpt2", "qwen2", "mistral"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_model_is_frozen_and_described(tiny_lm: TinyLM, architecture: str) -> None:
    lm = tiny_lm(architecture)
    assert not lm.model.training
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert (lm.device, lm.dtype) == (torch.device("cpu"), torch.float32)
    assert (lm.hidden_size, lm.max_length) == (32, 256)
    assert (lm.pad_token_id, lm.bos_token_id, lm.eos_token_id, lm.prefix_token_id) == (0, 1, 2, 1)
    assert lm.fingerprint == fingerprint(lm.model, lm.tokenizer)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_embedding_ids_is_what_the_forward_pass_does(tiny_lm: TinyLM, architecture: str) -> None:
    lm = tiny_lm(architecture)
    ids = torch.tensor([[5, 6, 7]])  # (1, T)
    embedded = lm.embed(ids)  # (1, T, d)
    assert embedded.shape == (1, 3, 32)
    torch.testing.assert_close(lm.model(inputs_embeds=embedded).logits, lm.model(input_ids=ids).logits)


def test_embeddings_that_scale_are_called_and_not_indexed(tiny_lm: TinyLM) -> None:
    lm = tiny_lm("gemma2")
    ids = torch.tensor([[5, 6]])  # (1, T)
    torch.testing.assert_close(lm.model(inputs_embeds=lm.embed(ids)).logits, lm.model(input_ids=ids).logits)


def test_gradients_reach_the_input_embeddings(tiny_lm: TinyLM) -> None:
    lm = tiny_lm()
    embedded = lm.embed(torch.tensor([[5, 6]])).requires_grad_()  # (1, T, d)
    lm.model(inputs_embeds=embedded).logits.sum().backward()
    assert embedded.grad is not None
    assert embedded.grad.abs().sum() > 0


def test_a_text_prompt_has_no_special_tokens(tiny_lm: TinyLM) -> None:
    lm = tiny_lm()
    ids = lm.tokenizer("Answer: ", add_special_tokens=False)["input_ids"]
    assert lm.bos_token_id not in ids
    embedded = lm.embed_prompt(Prompt("p", text="Answer: "))  # (n, d)
    assert torch.equal(embedded, lm.embed(torch.tensor(ids)))


def test_a_soft_prompt_is_moved_to_the_models_type(tiny_lm: TinyLM) -> None:
    lm = tiny_lm()
    half = LanguageModel(copy.deepcopy(lm.model).to(torch.bfloat16), lm.tokenizer, "half")
    prompt = Prompt("soft", embedding=torch.arange(64.0).reshape(2, 32))  # (n, d)
    assert torch.equal(lm.embed_prompt(prompt), prompt.embedding)
    assert half.embed_prompt(prompt).dtype == torch.bfloat16


def test_a_soft_prompt_of_another_width_is_an_error(tiny_lm: TinyLM) -> None:
    with pytest.raises(BankError, match=r"'soft' is 31 wide, but tiny-llama reads embeddings of width 32"):
        tiny_lm().embed_prompt(Prompt("soft", embedding=torch.ones(2, 31)))


def test_a_vector_is_no_prompt(tiny_lm: TinyLM) -> None:
    lm = tiny_lm()
    shift = PromptVector("shift", torch.ones(2, lm.hidden_size)).to_prompt()
    with pytest.raises(BankError, match="'shift' is a vector.*idp bank vector apply"):
        lm.embed_prompt(shift)


def test_a_text_without_tokens_is_an_error(tiny_lm: TinyLM, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = LanguageModel(tiny_lm().model, lambda *args, **kwargs: {"input_ids": []}, "mute")
    with pytest.raises(BankError, match="'p' gives no tokens with the tokenizer of mute"):
        lm.embed_prompt(Prompt("p", text="…"))


def test_a_model_without_input_embeddings_is_an_error(tiny_lm: TinyLM) -> None:
    with pytest.raises(ModelError, match="odd has no input embeddings"):
        LanguageModel(torch.nn.Linear(1, 1), tiny_lm().tokenizer, "odd")


def test_missing_special_tokens(tiny_lm: TinyLM) -> None:
    tokenizer = copy.deepcopy(tiny_lm().tokenizer)
    lm = LanguageModel(tiny_lm().model, tokenizer, "bare")
    tokenizer.bos_token = tokenizer.pad_token = None
    assert (lm.bos_token_id, lm.prefix_token_id, lm.pad_token_id) == (None, 2, 2)
    tokenizer.eos_token = None
    assert (lm.eos_token_id, lm.pad_token_id) == (None, 0)
    with pytest.raises(ModelError, match="bare has neither a bos nor an eos token"):
        _ = lm.prefix_token_id


@pytest.mark.parametrize(("declared", "length"), [(77, 77), (int(1e30), 2048)])
def test_without_a_length_in_the_config_the_tokenizer_is_asked(tiny_lm: TinyLM, declared: int, length: int) -> None:
    bloom = tiny_lm("bloom")
    model, tokenizer = copy.deepcopy(bloom.model), copy.deepcopy(bloom.tokenizer)
    tokenizer.model_max_length = declared
    model.config.seq_length = None
    assert LanguageModel(model, tokenizer, "bloom").max_length == length
