"""Prompts trained by PEFT do here what they do there, and where PEFT's batches are wrong, what they do alone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.dynamic.model import DynamicPromptModel
from idp.dynamic.wrap import wrap
from idp.errors import ModelError
from idp.model.loaded import LanguageModel
from idp.run.score import Request, score
from idp.run.store import PrefixStore
from idp.select.registry import get_selector

if TYPE_CHECKING:
    from peft import PeftModel

ATOL = 1e-5
ARCHITECTURES = ["llama", "opt", "gpt2", "bloom", "qwen2", "gemma2"]
_LORA = {"gpt2": ["c_attn"], "bloom": ["query_key_value"]}
_GREEDY = {"do_sample": False, "max_new_tokens": 4, "return_dict_in_generate": True, "output_logits": True}
_TEXTS = torch.tensor([[5, 6, 7, 8, 9, 10], [20, 21, 22, 23, 24, 25]])  # (B, T)
_ROWS = [[5, 6, 7, 8, 9, 10], [11, 12], [13], [14, 15, 16], [5, 6, 7, 8]]

# What PEFT says whenever generate() passes the positions, which no caller can prevent.
pytestmark = pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning:peft.peft_model")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def tuned(request, tiny_lm, trained_by_peft) -> tuple[PeftModel, DynamicPromptModel]:
    """A model with a prompt trained by PEFT, and the same model and prompt here."""
    lm = tiny_lm(request.param)
    model = trained_by_peft(lm)
    embedding = model.get_prompt_embedding_to_save("default").detach()  # (n, d)
    bank = PromptBank([Prompt("from-peft", embedding=embedding)])
    return model, DynamicPromptModel(lm, bank, get_selector("none"))


def _log_likelihood(model: Any, context: list[int], option: tuple[int, ...]) -> float:
    ids = torch.tensor([[*context, *option]])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -len(option) - 1 : -1]  # (L, V)
    return float(logits.log_softmax(-1).gather(-1, torch.tensor(option)[:, None]).sum())


def _close(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=ATOL, rtol=0)


def test_the_same_generation_in_batches_of_one_length(tuned):
    model, prompted = tuned
    there = model.generate(input_ids=_TEXTS, attention_mask=torch.ones_like(_TEXTS), **_GREEDY)
    here = prompted.generate_with([0, 0], _TEXTS, **_GREEDY)
    assert torch.equal(here.sequences, there.sequences)
    _close(here.logits, there.logits)


def test_the_same_log_likelihoods(tuned):
    model, prompted = tuned
    options = ((9, 8, 7), (4,), (30, 31))
    scored = score(prompted.store, [Request(tuple(row), options) for row in _ROWS], [0] * len(_ROWS), batch_size=3)
    for row, got in zip(_ROWS, scored, strict=True):
        expected = [_log_likelihood(model, row, option) for option in options]
        assert [one.loglikelihood for one in got.scores] == pytest.approx(expected, abs=2 * ATOL, rel=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_get_what_peft_gives_them_alone(tuned, padded, side):
    """In one batch PEFT leaves the padding between its prompt and the text; alone there is none."""
    model, prompted = tuned
    ids, mask = padded(_ROWS, side)
    here = prompted.generate_with([0] * len(_ROWS), ids, attention_mask=mask, **_GREEDY)
    for number, row in enumerate(_ROWS):
        alone = torch.tensor([row])
        there = model.generate(input_ids=alone, attention_mask=torch.ones_like(alone), **_GREEDY)
        new = there.sequences[0, len(row) :]
        assert torch.equal(here.sequences[number, ids.shape[1] :][: len(new)], new)
        steps = len(there.logits)
        _close(tuple(step[number] for step in here.logits[:steps]), tuple(step[0] for step in there.logits))


def test_the_prompt_is_what_changes_the_answer(tuned):
    """Else every comparison above would hold for two bare models."""
    _, prompted = tuned
    with_prompt, without = (prompted.generate_with([choice] * 2, _TEXTS, **_GREEDY) for choice in (0, -1))
    assert (with_prompt.logits[0] - without.logits[0]).abs().max() > 0.1


def _with_lora(lm: LanguageModel, architecture: str) -> PeftModel:
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        target_modules=_LORA.get(architecture, ["q_proj", "v_proj"]),
        fan_in_fan_out=architecture == "gpt2",  # its weights are stored the other way round
        init_lora_weights=False,  # the usual start is nought, which adds nothing
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return peft.get_peft_model(copy.deepcopy(lm.model), config).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_with_lora_is_used_like_the_model_merged_with_it(tiny_lm, mixed_bank, padded, architecture):
    lm = tiny_lm(architecture)
    bank, lora = mixed_bank(lm), _with_lora(lm, architecture)
    wrapped = wrap(lora, lm.tokenizer, bank, "random")
    merged = LanguageModel(copy.deepcopy(lora).merge_and_unload(), lm.tokenizer, "merged")
    ids, mask = padded(_ROWS, "left")
    choices = [0, 3, -1, 1, 2]
    got = wrapped.generate_with(choices, ids, attention_mask=mask, **_GREEDY)
    plain = DynamicPromptModel(merged, bank, get_selector("none"))
    _close(got.logits, plain.generate_with(choices, ids, attention_mask=mask, **_GREEDY).logits)
    requests = [Request(tuple(row), ((9, 8, 7), (4,))) for row in _ROWS]
    pairs = zip(*(score(store, requests, choices, batch_size=5) for store in (wrapped.store, plain.store)), strict=True)
    for one, other in pairs:
        expected = [option.loglikelihood for option in other.scores]
        assert [option.loglikelihood for option in one.scores] == pytest.approx(expected, abs=2 * ATOL, rel=1e-6)


def test_without_a_prompt_lora_is_the_bare_model_bit_for_bit(tiny_lm):
    lora = _with_lora(tiny_lm(), "llama")
    wrapped = wrap(lora, tiny_lm().tokenizer, selector="none")
    assert torch.equal(wrapped.generate(_TEXTS, max_new_tokens=4), lora.generate(input_ids=_TEXTS, max_new_tokens=4))
    assert len(PrefixStore(wrapped.lm, None)) == 0


def test_a_model_that_peft_gave_a_prompt_is_refused(tuned):
    model, prompted = tuned
    with pytest.raises(ModelError, match=r"has a prompt of PEFT's own.*get_prompt_embedding_to_save\('default'\)"):
        wrap(model, prompted.tokenizer, prompted.bank, "random")
