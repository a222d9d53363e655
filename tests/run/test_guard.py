from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessorList

from idp.bank.bank import PromptBank
from idp.dynamic.model import DynamicPromptModel
from idp.errors import ModelError
from idp.run.guard import RefuseNaN, guarded
from idp.select.registry import get_selector


@pytest.fixture
def broken(broken_lm):
    """A model that computes NaN as soon as it reads token 9, and only then."""
    return broken_lm("model.embed_tokens.weight", 9)


@pytest.mark.parametrize("choice", [-1, 1])
@pytest.mark.parametrize("settings", [{}, {"do_sample": True}, {"num_beams": 2}, {"use_cache": False}], ids=str)
def test_nan_is_an_error_that_names_the_row(broken, mixed_bank, choice, settings):
    prompted = DynamicPromptModel(broken, PromptBank(mixed_bank(broken).prompts), get_selector("none"))
    fine = torch.tensor([[5, 6, 7], [5, 6, 8]])
    assert prompted.generate_with([choice] * 2, fine, max_new_tokens=1, **settings).shape == (2, 4)
    with pytest.raises(ModelError, match="broken computed NaN for row 1: .* Try --dtype float32"):
        prompted.generate_with([choice] * 2, torch.tensor([[5, 6, 7], [5, 9, 8]]), max_new_tokens=1, **settings)


def test_scores_pass_unchanged_before_those_who_change_them(tiny_lm):
    lm = tiny_lm()
    scores = torch.tensor([[0.5, float("-inf")], [1.0, 2.0]])
    assert RefuseNaN(lm, 1)(torch.zeros(2, 1), scores) is scores

    def own(_, scores):
        return scores

    arguments = {"logits_processor": LogitsProcessorList([own]), "max_new_tokens": 2}
    processors = guarded(lm, arguments, 1)["logits_processor"]
    assert [type(processors[0]), processors[1]] == [RefuseNaN, own]
    assert len(arguments["logits_processor"]) == 1  # the caller's list is left as it was
