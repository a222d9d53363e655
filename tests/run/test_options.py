from __future__ import annotations

import copy

import pytest
import torch
from transformers import GenerationConfig

from idp.dynamic.model import DynamicPromptModel
from idp.model.loaded import LanguageModel
from idp.run.options import GenerationOptions
from idp.select.registry import get_selector


def test_arguments_come_before_the_config_and_that_before_the_models(tiny_lm):
    model = tiny_lm().model
    config = GenerationConfig(max_new_tokens=7, num_beams=3)
    options = GenerationOptions(model, config, {"num_beams": 5, "num_return_sequences": 2})
    assert options.new_tokens(10) == 7
    assert options.copies == 5
    assert options.states_new_tokens
    assert options.pad_token_id == model.generation_config.pad_token_id == 0
    assert options.eos_token_ids == [2]


def test_lengths_count_from_the_input(tiny_lm):
    model = tiny_lm().model
    options = GenerationOptions(model, None, {"max_length": 30, "min_length": 14})
    assert (options.new_tokens(10), options.min_new_tokens(10)) == (20, 4)
    assert options.new_tokens(40) == 1
    assert not options.states_new_tokens
    assert GenerationOptions(model, None, {}).new_tokens(10) == 20
    assert GenerationOptions(model, None, {"min_new_tokens": 3}).min_new_tokens(10) == 3


def test_end_tokens_in_all_their_forms(tiny_lm):
    model = tiny_lm().model
    for given in (4, [4], torch.tensor([4])):
        assert GenerationOptions(model, None, {"eos_token_id": given}).eos_token_ids == [4]


def test_changed_settings_go_into_a_copy_of_the_config(tiny_lm):
    config = GenerationConfig(max_new_tokens=7)
    arguments = GenerationOptions(tiny_lm().model, config, {"min_length": 2, "seed": 1}).arguments(
        max_new_tokens=3, min_length=0
    )
    assert arguments["generation_config"].max_new_tokens == 3
    assert arguments["seed"] == 1
    assert "min_length" not in arguments
    assert config.max_new_tokens == 7


@pytest.mark.parametrize(
    ("kwargs", "kind"),
    [
        ({}, "dynamic"),
        ({"cache_implementation": "dynamic"}, "dynamic"),
        ({"cache_implementation": "static"}, "static"),
        ({"cache_implementation": "quantized"}, "other"),
        ({"use_cache": False}, "other"),
        ({"prefill_chunk_size": 4}, "other"),
    ],
)
def test_kinds_of_caches_are_told(tiny_lm, kwargs, kind):
    model = tiny_lm().model
    assert GenerationOptions(model, None, kwargs).cache_kind == kind
    assert GenerationOptions(model, GenerationConfig(**kwargs), {}).cache_kind == kind


def test_a_static_cache_that_the_model_itself_asks_for(tiny_lm):
    model = copy.copy(tiny_lm().model)
    model.generation_config = GenerationConfig(cache_implementation="static")
    assert GenerationOptions(model, None, {}).cache_kind == "static"
    assert GenerationOptions(model, GenerationConfig(), {}).cache_kind == "other"  # a config could not take it back


def test_a_dynamic_cache_that_the_model_itself_asks_for(tiny_lm, mixed_bank):
    lm = tiny_lm()
    model = copy.copy(lm.model)
    prompted = DynamicPromptModel(LanguageModel(model, lm.tokenizer, "own cache"), mixed_bank(lm), get_selector("none"))
    ids, settings = torch.tensor([[5, 6, 7]]), {"max_new_tokens": 4, "do_sample": False}
    expected = prompted.generate_with([2], ids, **settings)
    model.generation_config = GenerationConfig(cache_implementation="dynamic", eos_token_id=2, pad_token_id=0)
    assert torch.equal(prompted.generate_with([2], ids, **settings), expected)
    assert torch.equal(prompted.generate_with([2], ids, GenerationConfig(**settings)), expected)
