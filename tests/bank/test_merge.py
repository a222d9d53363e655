"""One bank of several: nothing twice, no name lost, and no model mixed with another unasked."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch

from idp.bank import Fingerprint, Prompt, PromptBank, PromptVector, SelectorState, merge_banks
from idp.errors import BankError

DENSE = Fingerprint("LlamaForCausalLM", 2, 384, "a" * 16, "1" * 16)
SPARSE = replace(DENSE, weights="2" * 16)


def soft(name: str, value: float, **provenance: Any) -> Prompt:
    return Prompt(name, embedding=torch.full((3, 2), float(value)), provenance=provenance)


BRIEF = Prompt("brief", text="Be brief. ")


def test_prompts_in_their_order() -> None:
    merged = merge_banks({"a": PromptBank([soft("one", 1), BRIEF], DENSE), "b": PromptBank([soft("two", 2)], DENSE)})
    assert merged.prompts == (soft("one", 1), BRIEF, soft("two", 2))
    assert merged.fingerprint == DENSE


def test_names_that_clash_are_told_apart_by_bank() -> None:
    banks = {"a": PromptBank([soft("static", 1), soft("one", 2)]), "b": PromptBank([soft("static", 3)])}
    assert merge_banks(banks).names == ("a/static", "one", "b/static")
    assert merge_banks(banks, prefix=True).names == ("a/static", "a/one", "b/static")


def test_what_is_there_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    banks = {
        "a": PromptBank([soft("static", 1), soft("again", 1)]),
        "b": PromptBank([soft("other", 1), soft("static", 2)]),
    }
    merged = merge_banks(banks)
    assert merged.names == ("a/static", "b/static")
    assert "a:again (the same as a:static), b:other (the same as a:static)" in caplog.text


def test_a_duplicate_makes_no_clash() -> None:
    assert merge_banks({"a": PromptBank([BRIEF]), "b": PromptBank([BRIEF])}).names == ("brief",)


def test_inits_follow_their_new_names() -> None:
    a = PromptBank([soft("static", 1, init="rows"), soft("part", 2, init="static")])
    b = PromptBank([soft("same", 1), soft("static", 3), soft("other", 4, init="same")])
    merged = merge_banks({"a": a, "b": b})
    assert merged["a/static"].provenance["init"] == "rows"
    assert merged["part"].provenance["init"] == "a/static"
    assert merged["other"].provenance["init"] == "a/static"


def test_a_name_that_is_taken() -> None:
    banks = {"a": PromptBank([soft("static", 1), soft("b/static", 2)]), "b": PromptBank([soft("static", 3)])}
    with pytest.raises(BankError, match="would be called 'b/static': give --prefix"):
        merge_banks(banks)
    assert len(merge_banks(banks, prefix=True)) == 3


def test_selectors_are_left_out_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    fitted = PromptBank([soft("one", 1)], DENSE, {"router": SelectorState()})
    merged = merge_banks({"a": fitted, "b": PromptBank([soft("two", 2)])})
    assert not merged.selectors
    assert "selectors of a are left out: fit them again" in caplog.text


def test_nothing_is_said_where_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        merge_banks({"a": PromptBank([soft("one", 1)]), "b": PromptBank([BRIEF])})
    assert not caplog.records


def test_texts_fit_any_model() -> None:
    fitted_for_another = PromptBank([BRIEF], SPARSE, {"router": SelectorState()})
    assert merge_banks({"a": fitted_for_another, "b": PromptBank([soft("one", 1)], DENSE)}).fingerprint == DENSE
    assert merge_banks({"a": fitted_for_another}).fingerprint is None


def test_provenance_of_the_banks_is_kept() -> None:
    banks = {"a": PromptBank([BRIEF], provenance={"seed": 1}), "b": PromptBank([soft("one", 1)])}
    assert merge_banks(banks).provenance == {"merged": {"a": {"seed": 1}, "b": {}}}


def test_another_model_is_refused_and_both_are_named() -> None:
    banks = {"a": PromptBank([soft("one", 1)], DENSE), "b": PromptBank([soft("two", 2)], SPARSE)}
    with pytest.raises(BankError) as caught:
        merge_banks(banks)
    assert f"a was made for {DENSE.describe()}, but b for {SPARSE.describe()}" in str(caught.value)


def test_a_mismatch_can_be_allowed(caplog: pytest.LogCaptureFixture) -> None:
    banks = {"a": PromptBank([soft("one", 1)], SPARSE), "b": PromptBank([soft("two", 2)], DENSE)}
    assert merge_banks(banks, allow_mismatch=True).fingerprint == SPARSE
    assert "weights" in caplog.text


def test_widths_cannot_be_mixed() -> None:
    wide = PromptBank([Prompt("wide", embedding=torch.ones(3, 4))])
    with pytest.raises(BankError, match=r"widths \[2, 4\]"):
        merge_banks({"a": PromptBank([soft("one", 1)]), "b": wide})


def test_vectors_cannot_be_mixed_with_prompts() -> None:
    vectors = [PromptVector(name, torch.full((3, 2), float(value))).to_prompt() for name, value in (("v", 7), ("w", 8))]
    assert len(merge_banks({"a": PromptBank(vectors[:1]), "b": PromptBank(vectors[1:])})) == 2
    with pytest.raises(BankError, match="b:v is a vector and a:one a prompt"):
        merge_banks({"a": PromptBank([soft("one", 1)]), "b": PromptBank(vectors)})
