"""A fingerprint survives its dictionary and says where it differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from idp.bank import Fingerprint
from idp.errors import BankError

ONE = Fingerprint("LlamaForCausalLM", 64, 384, "a" * 16, "b" * 16)


def test_round_trip() -> None:
    assert Fingerprint.from_dict(ONE.to_dict()) == ONE
    assert ONE.differences(ONE) == []


def test_differences_name_the_fields() -> None:
    other = replace(ONE, architecture="OPTForCausalLM", weights="c" * 16)
    assert ONE.differences(other) == [
        "architecture LlamaForCausalLM against OPTForCausalLM",
        f"weights {'b' * 16} against {'c' * 16}",
    ]


def test_describe_names_the_model() -> None:
    assert "LlamaForCausalLM of width 64" in ONE.describe()


@pytest.mark.parametrize(
    "change", [{"hidden_size": "64"}, {"vocab_size": True}, {"weights": 3}, {"extra": 1}, {"architecture": None}]
)
def test_broken_dictionary(change: dict[str, Any]) -> None:
    with pytest.raises(BankError, match="fingerprint"):
        Fingerprint.from_dict(ONE.to_dict() | change)


def test_missing_field() -> None:
    values = ONE.to_dict()
    del values["weights"]
    with pytest.raises(BankError, match="has the fields"):
        Fingerprint.from_dict(values)
