"""A bank on disk: `bank.json` for what can be read, `bank.safetensors` for the numbers, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.fingerprint import Fingerprint
from idp.bank.prompt import Prompt, Stored
from idp.bank.state import SelectorState
from idp.bank.tensor_file import Place, TensorFile, tensor_sha256
from idp.bank.text import load_text_prompts
from idp.errors import BankError
from idp.files import atomic_write_bytes, atomic_write_text, json_text
from idp.resources import prompt_bank_dir

__all__ = ["INIT", "bank_path", "holds_bank", "holds_text", "load_bank", "save_bank"]

INIT = "init"
"""The folder inside a bank's that holds what its prompts were started from, and the key of a prompt's provenance."""

_JSON, _TENSORS = "bank.json", "bank.safetensors"
_YAML = {".yaml", ".yml"}
_FORMAT = "idp-bank"
_VERSION = 1
_KEYS = {"format", "version", "fingerprint", "prompts", "selectors", "provenance", "tensors_sha256"}
_PROMPT_KEYS = {"name", "kind", "text", "num_virtual_tokens", "digest", "provenance"}
_READ_WHOLE = 64 * 2**20
"""Bytes of tensors up to which a bank is read and checked as a whole when it is opened."""


def save_bank(bank: PromptBank, directory: Path) -> Path:
    """Write `bank` into `directory`; see `PromptBank.save`."""
    data = save(_tensors(bank))
    try:
        text = json_text(_description(bank, hashlib.sha256(data).hexdigest()))
    except (TypeError, ValueError) as error:
        raise BankError(f"the bank cannot be written as JSON: {error}.") from error
    # bank.json goes last and holds the other's checksum, so that a save cut short in between is noticed.
    atomic_write_bytes(directory / _TENSORS, data)
    atomic_write_text(directory / _JSON, text)
    return directory


def load_bank(path: Path) -> PromptBank:
    """Read the bank in folder `path`; see `PromptBank.load`."""
    path = bank_path(path)
    if holds_text(path):
        return PromptBank(load_text_prompts(path), provenance={"source": path.name})
    directory = path.parent if path.name == _JSON else path
    description = _read_json(directory / _JSON)
    tensors = _Tensors(directory / _TENSORS, description)
    try:
        return _bank(description, tensors)
    except BankError as error:
        raise BankError(f"{directory / _JSON} is broken: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BankError(
            f"{directory / _JSON} is broken: {type(error).__name__} {error}. Make the bank again."
        ) from error


def bank_path(path: str | os.PathLike[str]) -> Path:
    """Where a bank is: the path itself, or the shipped bank of that name where there is no such path."""
    path = Path(path)
    if path.exists():
        return path
    shipped = prompt_bank_dir() / path
    return shipped if shipped.exists() else path


def holds_bank(path: Path) -> bool:
    """Whether this is the folder of a bank that was saved."""
    return os.path.isfile(path / _JSON)


def holds_text(path: Path) -> bool:
    """Whether this is a YAML file, or a folder with such files and no bank that was saved."""
    if path.is_dir():
        return not holds_bank(path) and any(path.glob("*.yaml"))
    return path.suffix in _YAML and path.is_file()


def _prompt_key(name: str) -> str:
    return f"prompt/{name}"


def _selector_key(selector: str, tensor: str) -> str:
    return f"selector/{selector}/{tensor}"


def _tensors(bank: PromptBank) -> dict[str, Tensor]:
    tensors = {_prompt_key(prompt.name): prompt.embedding for prompt in bank if prompt.embedding is not None}
    for name, state in bank.selectors.items():
        tensors |= {_selector_key(name, key): value for key, value in state.tensors.items()}
    return tensors


def _description(bank: PromptBank, checksum: str) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "fingerprint": None if bank.fingerprint is None else bank.fingerprint.to_dict(),
        "prompts": [_described_prompt(prompt) for prompt in bank],
        "selectors": {
            name: {
                "config": state.config,
                "tensors": sorted(state.tensors),
                "sha256": {key: tensor_sha256(value) for key, value in state.tensors.items()},
            }
            for name, state in bank.selectors.items()
        },
        "provenance": dict(bank.provenance),
        "tensors_sha256": checksum,
    }


def _described_prompt(prompt: Prompt) -> dict[str, Any]:
    described: dict[str, Any] = {"name": prompt.name, "kind": prompt.kind, "provenance": dict(prompt.provenance)}
    if prompt.shape is None:
        return described | {"text": prompt.text}
    return described | {"num_virtual_tokens": prompt.shape[0], "digest": prompt.digest}


def _read_json(file: Path) -> dict[str, Any]:
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BankError(f"no prompt bank at {file.parent}: {file.name} is missing. Is the path right?") from error
    except (OSError, ValueError) as error:
        raise BankError(f"{file} cannot be read as JSON: {error}.") from error
    if not isinstance(description, dict) or description.get("format") != _FORMAT:
        raise BankError(f"{file} is not a prompt bank (its format is not {_FORMAT!r}).")
    if description.get("version") != _VERSION:
        raise BankError(f"{file} has version {description.get('version')!r}; this idp reads version {_VERSION}.")
    if set(description) != _KEYS:
        raise BankError(f"{file} is broken: missing or unknown keys {sorted(set(description) ^ _KEYS)}.")
    return description


class _Tensors:
    """The tensors of a bank on disk: read and checked as a whole, or where that is much, as they are needed.

    What `bank.json` has no checksums of, as in banks of before they were written, is always checked as a whole.
    """

    def __init__(self, path: Path, description: Mapping[str, Any]) -> None:
        self._file = TensorFile(path)
        self._whole = self._file.nbytes <= _READ_WHOLE
        if (self._whole or not _vouched(description)) and self._file.sha256() != description["tensors_sha256"]:
            raise BankError(
                f"{path} is damaged or belongs to another bank: its checksum is not the one in {_JSON}. Copy or build "
                "the bank again."
            )
        self._places = self._file.places()

    def embedding(self, name: str, digest: str | None) -> Tensor | Stored:
        stored = Stored(self._file, self._place(_prompt_key(name)), digest)
        return stored.read(name) if self._whole else stored

    def learned(self, key: str, sha256: str | None) -> Tensor:
        place = self._place(key)
        if self._whole:
            return self._file.read(place)
        if sha256 is not None and self._file.sha256(place) != sha256:
            raise BankError(f"tensor {key!r} in {_TENSORS} is damaged or belongs to another bank.")
        return self._file.map(place)

    def _place(self, key: str) -> Place:
        if key not in self._places:
            raise BankError(f"tensor {key!r} is missing from {_TENSORS}.")
        return self._places[key]


def _vouched(description: Mapping[str, Any]) -> bool:
    """Whether there is a checksum of every single tensor; a description that is broken is found out later."""
    try:
        prompts, selectors = description["prompts"], description["selectors"].values()
        return all("digest" in entry or entry["kind"] == "text" for entry in prompts) and all(
            set(entry["tensors"]) == set(entry.get("sha256", ())) for entry in selectors
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _bank(description: Mapping[str, Any], tensors: _Tensors) -> PromptBank:
    fingerprint = description["fingerprint"]
    return PromptBank(
        [_prompt(entry, tensors) for entry in description["prompts"]],
        fingerprint=None if fingerprint is None else Fingerprint.from_dict(fingerprint),
        selectors={name: _state(name, entry, tensors) for name, entry in description["selectors"].items()},
        provenance=description["provenance"],
    )


def _prompt(entry: Mapping[str, Any], tensors: _Tensors) -> Prompt:
    if unknown := set(entry) - _PROMPT_KEYS:
        raise BankError(f"unknown keys {sorted(unknown)} in prompt {entry.get('name')!r}.")
    name = entry["name"]
    if entry["kind"] == "text":
        return Prompt(name, text=entry["text"], provenance=entry["provenance"])
    embedding = tensors.embedding(name, entry.get("digest"))  # (n, d)
    prompt = Prompt(name, embedding=embedding, provenance=entry["provenance"])
    if prompt.shape is None or prompt.shape[0] != entry["num_virtual_tokens"]:
        raise BankError(f"prompt {name!r} has shape {prompt.shape}, not {entry['num_virtual_tokens']} tokens.")
    return prompt


def _state(name: str, entry: Mapping[str, Any], tensors: _Tensors) -> SelectorState:
    sums = entry.get("sha256", {})
    named = {key: tensors.learned(_selector_key(name, key), sums.get(key)) for key in entry["tensors"]}
    return SelectorState(entry["config"], named, copy=False)
