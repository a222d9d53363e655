from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import BankError, ModelError, PromptTooLongError
from idp.model.loaded import LanguageModel
from idp.run.forward import attention_window, takes_4d_masks
from idp.run.prefix import assemble, compile_prefix
from idp.run.store import PrefixStore


def test_prefix_has_the_models_shapes(tiny_lm, mixed_bank):
    lm = tiny_lm("qwen2")  # grouped queries: 2 heads of keys for 4 of queries
    prefix = PrefixStore(lm, mixed_bank(lm))[2]
    assert prefix.length == 5
    assert len(prefix.layers) == 2
    assert prefix.layers[0][0].shape == (2, 5, 8)


def test_other_prompts_do_not_change_a_prefix(tiny_lm, mixed_bank):
    lm = tiny_lm()
    bank = mixed_bank(lm)
    alone = PrefixStore(lm, PromptBank([bank[2]]))[0]
    among = PrefixStore(lm, bank)[2]
    for (k1, v1), (k2, v2) in zip(alone.layers, among.layers, strict=True):
        assert torch.equal(k1, k2) and torch.equal(v1, v2)


def test_assemble_pads_on_the_left(tiny_lm, mixed_bank):
    lm = tiny_lm()
    store = PrefixStore(lm, mixed_bank(lm))
    cache, mask = assemble([store[2], None, store[3], store[2]])
    assert mask.tolist() == [[0] * 6 + [1] * 5, [0] * 11, [1] * 11, [0] * 6 + [1] * 5]
    keys = cache.layers[1].keys
    assert keys.shape == (4, 2, 11, 8)
    assert torch.equal(keys[0, :, 6:], store[2].layers[1][0])
    assert torch.equal(keys[2], store[3].layers[1][0])
    assert not keys[1].any()
    assert torch.equal(keys[0], keys[3])


def test_assemble_without_prompts_makes_no_cache():
    cache, mask = assemble([None, None])
    assert cache is None
    assert mask.shape == (2, 0)
    assert assemble([])[1].shape == (0, 0)


def test_assemble_does_not_lend_out_the_store(tiny_lm, mixed_bank):
    lm = tiny_lm()
    store = PrefixStore(lm, mixed_bank(lm))
    before = store[1].layers[0][0].clone()
    cache, _ = assemble([store[1], store[1]])
    cache.layers[0].keys.zero_()
    assert torch.equal(store[1].layers[0][0], before)


def test_assemble_refuses_prefixes_of_different_models(tiny_lm):
    prompt = Prompt("p", text="Answer: ")
    two, three = (compile_prefix(tiny_lm(num_hidden_layers=layers), prompt) for layers in (2, 3))
    with pytest.raises(BankError, match="different numbers of layers"):
        assemble([two, three])


def test_prompt_that_fills_the_context_is_refused(tiny_lm):
    lm = tiny_lm()
    prompt = Prompt("long", embedding=torch.zeros(256, 32))
    with pytest.raises(PromptTooLongError, match=r"'long' has 256 tokens, but the context of tiny-llama holds 256"):
        compile_prefix(lm, prompt)


def test_prompt_of_another_width_is_refused(tiny_lm):
    with pytest.raises(BankError, match="16 wide"):
        compile_prefix(tiny_lm(), Prompt("narrow", embedding=torch.zeros(3, 16)))


def test_broken_weights_are_noticed(broken_lm):
    broken = broken_lm("model.layers.0.mlp.down_proj.weight", 0)
    with pytest.raises(ModelError, match="broken computed NaN or infinite values for prompt 'p'"):
        compile_prefix(broken, Prompt("p", text="Answer: "))


class _Doubled(nn.Module):
    """An embedding that does something of its own, as Gemma 3's does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids):
        return 2 * self.inner(ids)


def test_text_prompts_go_through_the_models_own_embedding(tiny_lm):
    lm = tiny_lm()
    model = copy.deepcopy(lm.model)
    model.set_input_embeddings(_Doubled(model.get_input_embeddings()))
    doubled = LanguageModel(model, lm.tokenizer, "doubled")
    text = "Answer with a fact: "
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        cache = model(input_ids=torch.tensor([ids]), use_cache=True).past_key_values
    prefix = compile_prefix(doubled, Prompt("p", text=text))
    for (keys, values), layer in zip(prefix.layers, cache.layers, strict=True):
        torch.testing.assert_close(keys, layer.keys[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(values, layer.values[0], atol=1e-6, rtol=0)


def test_what_models_can_take(tiny_lm):
    assert takes_4d_masks(tiny_lm())
    assert not takes_4d_masks(tiny_lm("bloom"))
    assert attention_window(tiny_lm()) is None
    assert attention_window(tiny_lm("mistral", sliding_window=8)) == 8
