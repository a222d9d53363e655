"""A large bank is opened without reading its prompts, and what is wrong with one is said when it is used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from idp.bank import Prompt, PromptBank, SelectorState, storage
from idp.bank.tensor_file import TensorFile
from idp.errors import BankError
from idp.files import sha256_of

NAMES = ["river", "town", "mill"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bank of three soft prompts, a text and a selector, which counts as large."""
    monkeypatch.setattr(storage, "_READ_WHOLE", 0)
    generator = torch.Generator().manual_seed(0)
    soft = [Prompt(name, embedding=torch.randn(n, 4, generator=generator)) for n, name in enumerate(NAMES, start=1)]
    state = SelectorState({"keys": "centroid"}, {"keys": torch.randn(5, 4), "mean": torch.randn(4).double()})
    return PromptBank([*soft, Prompt("text", text="Be brief. ")], selectors={"keys": state}).save(tmp_path / "bank")


@pytest.fixture
def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> PromptBank:
    """The same bank, opened while nothing may be read."""
    with monkeypatch.context() as patch:
        patch.setattr(TensorFile, "read", lambda *_: pytest.fail("a tensor was read"))
        return PromptBank.load(folder)


def _whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> PromptBank:
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_READ_WHOLE", 2**20)
        return PromptBank.load(folder)


def test_it_equals_the_bank_that_is_read_at_once(
    folder: Path, loaded: PromptBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _whole(folder, monkeypatch)
    assert loaded.prompts == whole.prompts
    assert loaded.digest == whole.digest
    for name, tensor in whole.selectors["keys"].tensors.items():
        assert torch.equal(loaded.selectors["keys"].tensors[name], tensor)


def test_what_is_known_without_reading(loaded: PromptBank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorFile, "read", lambda *_: pytest.fail("a tensor was read"))
    assert [prompt.shape for prompt in loaded] == [(1, 4), (2, 4), (3, 4), None]
    assert [prompt.kind for prompt in loaded] == ["soft", "soft", "soft", "text"]
    assert len(loaded.digest) == 32


def test_saved_again_it_has_the_same_bytes(folder: Path, loaded: PromptBank, tmp_path: Path) -> None:
    before = {name: (folder / name).read_bytes() for name in ("bank.json", "bank.safetensors")}
    loaded.save(tmp_path / "again")
    loaded.save(folder)  # onto the very file it reads from
    for name, data in before.items():
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes() == data
    assert loaded["mill"] == PromptBank.load(folder)["mill"]


def test_a_damaged_prompt_is_found_when_it_is_used_and_the_others_go_on(folder: Path) -> None:
    place = TensorFile(folder / "bank.safetensors").places()["prompt/town"]
    with open(folder / "bank.safetensors", "rb+") as stream:
        stream.seek(place.start)
        stream.write(b"\x01\x02")
    bank = PromptBank.load(folder)
    assert bank["river"].embedding is not None
    with pytest.raises(BankError, match=r"bank.safetensors is damaged: prompt 'town'"):
        _ = bank["town"].embedding


def test_a_file_that_is_cut_short_after_it_was_opened(folder: Path, loaded: PromptBank) -> None:
    with open(folder / "bank.safetensors", "rb+") as stream:
        stream.truncate(stream.seek(0, 2) // 2)
    with pytest.raises(BankError, match="cut short"):
        _ = [prompt.embedding for prompt in loaded]
    with pytest.raises(BankError, match="not a safetensors file"):
        PromptBank.load(folder)


@pytest.mark.parametrize("tensor", ["keys", "mean"])
def test_what_selectors_learned_is_checked_at_once(folder: Path, tensor: str) -> None:
    place = TensorFile(folder / "bank.safetensors").places()[f"selector/keys/{tensor}"]
    with open(folder / "bank.safetensors", "rb+") as stream:
        stream.seek(place.start)
        stream.write(b"\x01\x02")
    with pytest.raises(BankError, match=f"tensor 'selector/keys/{tensor}' in bank.safetensors is damaged"):
        PromptBank.load(folder)


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    description = json.loads((folder / "bank.json").read_text())
    change(description)
    (folder / "bank.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    "forget", [lambda d: d["prompts"][1].pop("digest"), lambda d: d["selectors"]["keys"].pop("sha256")]
)
def test_without_its_checksums_a_bank_is_checked_as_a_whole(
    folder: Path, forget: Callable[[dict[str, Any]], object]
) -> None:
    _edit(folder, forget)
    assert PromptBank.load(folder)["town"].embedding is not None
    with open(folder / "bank.safetensors", "rb+") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    with pytest.raises(BankError, match="damaged or belongs to another bank"):
        PromptBank.load(folder)


def test_infinity_that_nobody_vouched_against_is_found_when_it_is_used(folder: Path) -> None:
    file = folder / "bank.safetensors"
    place = TensorFile(file).places()["prompt/mill"]
    with open(file, "rb+") as stream:
        stream.seek(place.start)
        stream.write(torch.tensor([torch.inf]).numpy().tobytes())
    _edit(folder, lambda d: (d["prompts"][2].pop("digest"), d.update(tensors_sha256=sha256_of(file))))
    bank = PromptBank.load(folder)
    with pytest.raises(BankError, match="prompt 'mill' holds NaN or infinity"):
        _ = bank["mill"].embedding


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["prompts"][1].update(num_virtual_tokens=3), "not 3"),
        (lambda d: d["prompts"][1].update(name="other"), "prompt/other"),
        (lambda d: d.update(prompts=3), "broken"),
        (lambda d: d["selectors"].update(keys=3), "broken"),
    ],
)
def test_a_broken_description_is_found_at_once(
    folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    _edit(folder, change)
    with pytest.raises(BankError, match=message) as caught:
        PromptBank.load(folder)
    assert "bank.json" in str(caught.value)
