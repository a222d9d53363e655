from __future__ import annotations

import json

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import TaskError
from idp.evaluate.probe.layers import look_inside
from idp.evaluate.probe.measure import probe
from idp.evaluate.probe.questions import ask_facts
from idp.model.load import load
from idp.reference.world import build_world
from idp.run.store import PrefixStore


@pytest.fixture(scope="module")
def compressed():
    return load("reference", device="cpu", dtype="float32")


def test_every_fact_is_asked_with_and_without_the_answer(compressed):
    asked = ask_facts(compressed, build_world(0), 5, seed=1)
    assert len(asked) == 30
    for closed, opened in zip(asked[::2], asked[1::2], strict=True):
        assert closed.fact == opened.fact and (closed.book, opened.book) == ("closed", "open")
        words = [compressed.tokenizer.decode(each.example.right) for each in (closed, opened)]
        assert words[0] == words[1]
        support = compressed.tokenizer.decode(opened.example.context).split("Question:")[0].lower()
        assert closed.fact.subject.lower() in support and words[0].strip().lower() in support
    assert ask_facts(compressed, build_world(0), 5, seed=1) == asked
    assert {each.fact for each in ask_facts(compressed, build_world(0), 5, seed=2)} != {each.fact for each in asked}


def test_attention_and_change_by_hand(tiny_lm):
    """Against the attention of one pass, and states of two, put together here."""
    lm = tiny_lm()
    bank = PromptBank([Prompt("soft", embedding=torch.randn(3, lm.hidden_size))], lm.fingerprint)
    before = lm.model.config._attn_implementation
    found = look_inside(PrefixStore(lm, bank), [[5, 6, 7, 8]], [0])
    assert lm.model.config._attn_implementation == before and found.inputs == 1
    embedded = lm.model.get_input_embeddings()(torch.tensor([[5, 6, 7, 8]]))
    both = torch.cat([bank[0].embedding[None], embedded], dim=1)
    with torch.no_grad():
        prompted, bare = (lm.model(inputs_embeds=each, output_hidden_states=True) for each in (both, embedded))
    ours, theirs = prompted.hidden_states[1][0, 3:], bare.hidden_states[1][0]
    expected = ((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).mean()
    assert found.change[0] == pytest.approx(float(expected), rel=1e-4)
    assert len(found.attention) == 2 and all(0 < share < 1 for share in found.attention)


def test_a_prompt_that_nobody_can_tell_from_nothing_changes_nothing(tiny_lm):
    lm = tiny_lm()
    assert look_inside(PrefixStore(lm, None), [[5, 6]], [-1]) is None


@pytest.mark.slow
def test_displaced_knowledge_is_found_on_the_reference_model(compressed):
    """The tuned bank gives evaluation facts back, and facts never seen as little as luck does."""
    found = probe(
        load("reference-dense", device="cpu", dtype="float32"),
        compressed,
        PromptBank.load("tuned/sparse"),
        arms=("router",),
        per_split=500,
    )
    [regain] = found.regains
    assert regain.shares["evaluation"].value > regain.shares["unseen"].value and regain.p < 0.05
    rows = {(row.book, row.facts): row for row in found.sets}
    assert rows["closed", "evaluation"].accuracy["router"] > rows["closed", "evaluation"].accuracy["compressed"]
    assert rows["closed", "unseen"].accuracy["dense"] == pytest.approx(0.25, abs=0.07)
    assert len(found.frequencies) == 4 and set(found.inside) == {"router"}
    assert json.loads(json.dumps(found.to_dict()))["null_hypothesis"].startswith("The null")


def test_other_models_know_no_facts(tiny_lm):
    with pytest.raises(TaskError, match="facts are known of the reference world alone"):
        probe(tiny_lm(), tiny_lm(), PromptBank([Prompt("a", text="b")]))
