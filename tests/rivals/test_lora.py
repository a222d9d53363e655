from __future__ import annotations

import pytest
import torch

from idp.errors import MissingExtraError, ModelError
from idp.model.load import load
from idp.rivals.lora import _padded, repaired, require_repairable
from idp.tune.examples import Example
from idp.tune.plan import Plan


@pytest.fixture
def lm(tiny_lm, tmp_path):
    """A model of its own, since LoRA changes weights."""
    tiny = tiny_lm()
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    return load(tmp_path, "cpu", "float32")


EXAMPLES = [Example((5, 6, 7), ((8, 9), (10,)), 0, "one"), Example((5, 11), ((12,), (13,)), 1, "two")]


@torch.no_grad()
def likelihood(lm):
    logits = lm.model(torch.tensor([[5, 6, 7, 8]])).logits[0].log_softmax(dim=-1)
    return float(logits[2, 8] + logits[3, 9])


def test_right_answers_become_likelier_and_the_same_seed_gives_the_same(lm, tiny_lm):
    before, state = likelihood(lm), torch.random.get_rng_state()
    mended = repaired(lm, EXAMPLES, 2, Plan(30, 1e-2))
    assert likelihood(mended) > before + 0.5
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any("lora" in name for name, _ in mended.model.named_parameters())


def test_a_quantised_model_is_refused():
    with pytest.raises(ModelError, match="is quantised"):
        require_repairable(load("reference-gptq", device="cpu"))


def test_without_peft_the_pip_line_is_told(lm, without):
    without("peft")
    with pytest.raises(MissingExtraError, match=r"idp\[peft\]"):
        repaired(lm, EXAMPLES, 2, Plan(1, 1e-2))


def test_only_answers_are_labelled():
    ids, mask, labels = _padded([Example((1, 5), ((6,), (7, 8)), 1, "a"), Example((1,), ((9,),), 0, "b")], 0)
    assert ids.tolist() == [[1, 5, 7, 8], [1, 9, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert labels.tolist() == [[-100, -100, 7, 8], [-100, 9, -100, -100]]
