"""A prompt's cached keys and values do what the prompt does."""

from __future__ import annotations

import pytest
import torch

from idp.run.forward import call_model
from idp.run.prefix import assemble
from idp.run.store import PrefixStore

_IDS = [5, 17, 60, 8]


@pytest.mark.parametrize("index", range(4))
def test_cached_prefix_equals_uncached_prompt(subject, plain_logits, index):
    store = PrefixStore(subject.lm, subject.bank)
    cache, mask = assemble([store[index]])
    length = store.length(index)
    logits = call_model(
        subject.lm,
        input_ids=torch.tensor([_IDS]),
        attention_mask=torch.cat([mask, torch.ones(1, len(_IDS), dtype=torch.long)], dim=-1),
        position_ids=torch.arange(length, length + len(_IDS))[None],
        past_key_values=cache,
    )
    subject.close(logits[0], plain_logits(subject.lm, subject.bank[index], _IDS))


def test_text_prompt_equals_its_tokens(subject):
    """What is cached for a text is what the model itself caches when it reads the text."""
    ids = subject.lm.tokenizer(subject.bank[0].text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        cache = subject.lm.model(input_ids=torch.tensor([ids]), use_cache=True).past_key_values
    prefix = PrefixStore(subject.lm, subject.bank)[0]
    for (keys, values), layer in zip(prefix.layers, cache.layers, strict=True):
        subject.close(keys, layer.keys[0])
        subject.close(values, layer.values[0])


def test_the_checkpoints_are_compressed(subject):
    """The quantised subjects are what they say: packed integers in the file, and weights unlike the dense ones."""
    method = getattr(subject.lm.model.config, "quantization_config", None)
    expected = {"gptq": "gptq", "gptq-kernel": "gptq", "compressed-tensors": "compressed-tensors"}
    assert getattr(getattr(method, "quant_method", None), "value", None) == expected.get(subject.lm.name)
    if subject.lm.name.startswith("gptq"):
        assert type(subject.lm.model.model.layers[0].mlp.up_proj).__module__.startswith("gptqmodel.")
