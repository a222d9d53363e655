"""A prompt is either words or vectors, and never nothing."""

from __future__ import annotations

import pytest
import torch

from idp.bank import Prompt
from idp.errors import BankError


def test_kinds() -> None:
    assert Prompt("a", text="Hello. ").kind == "text"
    assert Prompt("a", embedding=torch.zeros(2, 3)).kind == "soft"


def test_text_is_kept_as_it_is() -> None:
    assert Prompt("a", text="  Hello.\n").text == "  Hello.\n"


@pytest.mark.parametrize("name", ["", "  "])
def test_a_name_is_needed(name: str) -> None:
    with pytest.raises(BankError, match="needs a name"):
        Prompt(name, text="Hello.")


def test_neither_or_both_is_an_error() -> None:
    with pytest.raises(BankError, match="'a' needs either"):
        Prompt("a")
    with pytest.raises(BankError, match="'a' needs either"):
        Prompt("a", text="Hello.", embedding=torch.zeros(1, 2))


@pytest.mark.parametrize("text", ["", " \n"])
def test_empty_text_is_an_error(text: str) -> None:
    with pytest.raises(BankError, match="'a' is empty"):
        Prompt("a", text=text)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 0), (1, 2, 3)])
def test_embedding_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(BankError, match="shape"):
        Prompt("a", embedding=torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embedding_must_be_finite(value: float) -> None:
    with pytest.raises(BankError, match="NaN or infinity"):
        Prompt("a", embedding=torch.tensor([[0.0, value]]))


def test_embedding_must_be_numbers() -> None:
    with pytest.raises(BankError, match="floating-point"):
        Prompt("a", embedding=torch.ones(2, 3, dtype=torch.long))


def test_embedding_is_an_own_detached_copy_in_fp32() -> None:
    tuned = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    prompt = Prompt("a", embedding=tuned)
    with torch.no_grad():
        tuned.zero_()
    assert prompt.embedding is not None
    assert prompt.embedding.dtype is torch.float32
    assert not prompt.embedding.requires_grad
    assert torch.equal(prompt.embedding, torch.ones(2, 3))


def test_equality_is_by_value() -> None:
    soft = Prompt("a", embedding=torch.ones(1, 2))
    assert soft == Prompt("a", embedding=torch.ones(1, 2))
    assert soft != Prompt("a", embedding=torch.zeros(1, 2))
    assert soft != Prompt("a", text="Hello.")
    assert hash(soft) == hash(Prompt("a", embedding=torch.ones(1, 2)))


def test_provenance_cannot_be_changed() -> None:
    provenance = {"seed": 1}
    prompt = Prompt("a", text="Hello.", provenance=provenance)
    provenance["seed"] = 2
    assert prompt.provenance["seed"] == 1
    with pytest.raises(TypeError):
        prompt.provenance["seed"] = 3  # type: ignore[index]
