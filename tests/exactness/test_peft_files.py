"""An adapter on disk does the same to a model in PEFT and here, whichever of the two wrote it."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.peft import PEFT_TYPES, load_peft, save_peft
from idp.bank.prompt import Prompt
from idp.dynamic.model import DynamicPromptModel
from idp.model.loaded import LanguageModel
from idp.model.soft import as_soft
from idp.select.registry import get_selector

ATOL = 1e-5
ARCHITECTURES = ["llama", "opt", "gpt2", "bloom", "qwen2", "gemma2"]
_ROWS = [[5, 6, 7, 8, 9, 10], [11, 12], [13], [14, 15, 16], [5, 6, 7, 8]]


def _here(lm: LanguageModel, prompt: Prompt, ids: Tensor, mask: Tensor) -> Tensor:
    """Logits `(B, V)` of the first token that follows each row."""
    prompted = DynamicPromptModel(lm, PromptBank([prompt]), get_selector("none"))
    wanted = {"do_sample": False, "max_new_tokens": 1, "return_dict_in_generate": True, "output_logits": True}
    return prompted.generate_with([0] * len(ids), ids, attention_mask=mask, **wanted).logits[0]


def _there(model: peft.PeftModel, ids: Tensor, mask: Tensor) -> Tensor:
    """The same from PEFT, which is right on rows that are padded on the right (on the left it is not)."""
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits[:, -ids.shape[1] :]  # (B, T, V)
    return logits[torch.arange(len(ids)), mask.sum(-1) - 1]


def _agree(lm: LanguageModel, prompt: Prompt, model: peft.PeftModel, padded) -> None:
    ids, mask = padded(_ROWS, "right")
    torch.testing.assert_close(_here(lm, prompt, ids, mask), _there(model, ids, mask), atol=ATOL, rtol=0)
    whole = torch.tensor([_ROWS[0], _ROWS[0][::-1]])  # rows of one length
    ones = torch.ones_like(whole)
    torch.testing.assert_close(_here(lm, prompt, whole, ones), _there(model, whole, ones), atol=ATOL, rtol=0)
    with torch.no_grad():
        bare = lm.model(input_ids=whole).logits[:, -1]
    assert (_here(lm, prompt, whole, ones) - bare).abs().max() > 0.1  # else two bare models would agree as well


@pytest.mark.parametrize("kind", PEFT_TYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_exported_peft_loads(tiny_lm, mixed_bank, padded, tmp_path, architecture, kind):
    lm = tiny_lm(architecture)
    prompt = mixed_bank(lm)["soft-5"]
    model = peft.PeftModel.from_pretrained(copy.deepcopy(lm.model), save_peft(prompt, tmp_path / "it", peft_type=kind))
    assert model.active_peft_config.peft_type == kind
    _agree(lm, prompt, model, padded)


@pytest.mark.parametrize("kind", PEFT_TYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_peft_trained_is_imported(tiny_lm, trained_by_peft, padded, tmp_path, architecture, kind):
    lm = tiny_lm(architecture)
    model = trained_by_peft(lm, kind)
    model.save_pretrained(tmp_path)
    _agree(lm, load_peft(tmp_path), model, padded)


def test_text_goes_to_peft_as_its_embeddings(tiny_lm, mixed_bank, padded, tmp_path):
    lm = tiny_lm("gemma2")  # which scales its embeddings
    text = mixed_bank(lm)["text"]
    folder = save_peft(as_soft(lm, text), tmp_path / "it")
    _agree(lm, text, peft.PeftModel.from_pretrained(copy.deepcopy(lm.model), folder), padded)


def test_an_embedding_that_is_narrower_than_the_model(tiny_lm, mixed_bank, padded, tmp_path):
    """OPT-350m projects its embeddings; PEFT takes the hidden size for their width unless the adapter says it."""
    lm = tiny_lm("opt", word_embed_proj_dim=16)
    prompt = mixed_bank(lm)["soft-5"]
    assert prompt.embedding.shape[1] == 16
    folder = save_peft(prompt, tmp_path / "it")
    _agree(lm, prompt, peft.PeftModel.from_pretrained(copy.deepcopy(lm.model), folder), padded)
