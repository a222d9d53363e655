"""Text as vectors: the same to the model, and checked."""

from __future__ import annotations

import pytest
import torch

from idp.bank.prompt import Prompt
from idp.errors import BankError
from idp.model.soft import as_soft


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])  # the latter scales its embeddings
def test_the_same_logits_as_the_text(tiny_lm, plain_logits, architecture):
    lm = tiny_lm(architecture)
    text = Prompt("fact", text="Answer with a fact: ", provenance={"kind": "instruction"})
    soft = as_soft(lm, text)
    assert (soft.name, soft.kind) == ("fact", "soft")
    assert dict(soft.provenance) == {"kind": "instruction", "text": "Answer with a fact: "}
    assert torch.equal(plain_logits(lm, soft, [5, 6, 7]), plain_logits(lm, text, [5, 6, 7]))


def test_a_soft_prompt_stays_what_it_is(tiny_lm, mixed_bank):
    lm = tiny_lm()
    prompt = mixed_bank(lm)["soft-5"]
    assert as_soft(lm, prompt) is prompt


def test_a_soft_prompt_of_another_width_is_refused(tiny_lm):
    with pytest.raises(BankError, match=r"'other' is 31 wide, but tiny-llama reads embeddings of width 32"):
        as_soft(tiny_lm(), Prompt("other", embedding=torch.zeros(2, 31)))
