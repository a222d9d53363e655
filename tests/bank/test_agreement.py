"""Prompts of several banks go together where all but the weights agree, and the caller says which weights are meant."""

from __future__ import annotations

from dataclasses import replace

import pytest

from idp.bank.agreement import common_fingerprint, require_same_embeddings
from idp.bank.fingerprint import Fingerprint
from idp.errors import BankError

DENSE = Fingerprint("LlamaForCausalLM", 4, 384, "a" * 16, "1" * 16)
SPARSE = replace(DENSE, weights="2" * 16)
OTHERS = [
    replace(DENSE, architecture="OPTForCausalLM"),
    replace(DENSE, hidden_size=8),
    replace(DENSE, vocab_size=512),
    replace(DENSE, tokenizer="b" * 16),
]


def test_one_model_is_the_result_s() -> None:
    assert common_fingerprint([("a", DENSE), ("b", None), ("c", DENSE)]) == DENSE
    assert common_fingerprint([("a", None), ("b", DENSE)]) == DENSE


def test_without_any_model_there_is_none() -> None:
    assert common_fingerprint([("a", None), ("b", None)]) is None
    assert common_fingerprint([]) is None


def test_other_weights_need_a_target() -> None:
    with pytest.raises(BankError) as caught:
        common_fingerprint([("dense:task", DENSE), ("sparse:static", SPARSE)])
    message = str(caught.value)
    assert f"dense:task was made for {DENSE.describe()}, but sparse:static for {SPARSE.describe()}" in message
    assert f"weights {DENSE.weights} against {SPARSE.weights}" in message
    assert "--for" in message


@pytest.mark.parametrize("target", [DENSE, SPARSE, replace(DENSE, weights="3" * 16)])
def test_the_target_is_what_the_result_is_for(target: Fingerprint) -> None:
    assert common_fingerprint([("a", DENSE), ("b", SPARSE)], target) == target
    assert common_fingerprint([("a", DENSE)], target) == target
    assert common_fingerprint([("a", None)], target) == target


@pytest.mark.parametrize("other", OTHERS)
def test_everything_but_weights_has_to_agree(other: Fingerprint) -> None:
    with pytest.raises(BankError, match="a was made for .* but b for .* against .* one kind of model"):
        common_fingerprint([("a", DENSE), ("b", other)], target=DENSE)
    with pytest.raises(BankError, match="but the target for"):
        common_fingerprint([("a", DENSE)], target=other)
    with pytest.raises(BankError, match="but b for"):
        require_same_embeddings([("a", DENSE), ("c", SPARSE), ("b", other)])


def test_the_same_name_twice_hides_nothing() -> None:
    with pytest.raises(BankError, match="static was made for .* but static for"):
        common_fingerprint([("static", DENSE), ("static", SPARSE)])


def test_other_weights_may_be_compared() -> None:
    require_same_embeddings([("a", DENSE), ("b", SPARSE), ("c", None)])
