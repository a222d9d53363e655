"""`idp bank show`: everything a bank knows, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

from idp.bank import PromptBank

Done = Callable[..., str]


def test_json_holds_everything_but_numbers(done: Done) -> None:
    shown, bank = json.loads(done("show", "dense", "--json")), PromptBank.load("dense")
    assert bank.fingerprint is not None
    assert shown["fingerprint"] == bank.fingerprint.to_dict()
    assert shown["selectors"] == {"router": {"seed": 0}}
    assert shown["provenance"] == {"corpus": "atlas"}
    assert shown["prompts"][0] == {
        "name": "static",
        "kind": "soft",
        "num_virtual_tokens": 2,
        "text": None,
        "digest": bank["static"].digest,
        "provenance": {"init": "rows", "objective": "answer", "steps": 40, "held_out_loss": 2.25},
    }


def test_the_table(done: Done) -> None:
    text = done("show", "dense")
    assert "LlamaForCausalLM of width 2" in text
    assert "selectors: router" in text
    assert "corpus: atlas" in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert lines["name"] == ["name", "kind", "tokens", "init", "objective", "steps", "held-out", "loss"]
    assert lines["static"] == ["static", "soft", "2", "rows", "answer", "40", "2.25"]
    assert lines["task"] == ["task", "soft", "2", "static", "20"]


def test_a_bank_of_texts(done: Done) -> None:
    text = done("show", "text")
    assert "model: any" in text
    assert "selectors: none fitted" in text
    assert all(name in text for name in PromptBank.load("text").names)
    shown = json.loads(done("show", "text", "--json"))["prompts"][0]
    assert shown["text"] == PromptBank.load("text")[0].text
    assert shown["num_virtual_tokens"] is None


def test_a_shipped_bank(done: Done) -> None:
    assert len(json.loads(done("show", "tuned/sparse", "--json"))["prompts"]) == len(PromptBank.load("tuned/sparse"))
    shown = done("show", "tuned/sparse")
    assert "part-3" in shown
    assert "overlap: checked 21,169, found 2,273, kept" in shown
    assert shown.count("distill+distill-choice") == 1  # of the bank, not of each prompt


def test_a_vector_says_what_it_is_of(done: Done) -> None:
    done("vector", "difference", "v", "dense:static")
    lines = {line.split()[0]: line.split() for line in done("show", "v").splitlines() if line}
    assert lines["name"] == ["name", "kind", "tokens", "of", "minus"]
    assert lines["v"] == ["v", "vector", "2", "dense:static", "dense/init:rows"]


def test_no_bank(refused: Done) -> None:
    assert "no prompt bank at nowhere" in refused("show", "nowhere")
