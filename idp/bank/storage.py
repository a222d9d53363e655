"""A bank on disk: `bank.json` for what can be read, `bank.safetensors` for the numbers, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.fingerprint import Fingerprint
from idp.bank.prompt import Prompt
from idp.bank.state import SelectorState
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
_PROMPT_KEYS = {"name", "kind", "text", "num_virtual_tokens", "provenance"}


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
    tensors = _read_tensors(directory / _TENSORS, description["tensors_sha256"])
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
            name: {"config": state.config, "tensors": sorted(state.tensors)} for name, state in bank.selectors.items()
        },
        "provenance": dict(bank.provenance),
        "tensors_sha256": checksum,
    }


def _described_prompt(prompt: Prompt) -> dict[str, Any]:
    described: dict[str, Any] = {"name": prompt.name, "kind": prompt.kind, "provenance": dict(prompt.provenance)}
    if prompt.embedding is None:
        return described | {"text": prompt.text}
    return described | {"num_virtual_tokens": prompt.embedding.shape[0]}


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


def _read_tensors(file: Path, checksum: str) -> dict[str, Tensor]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BankError(f"{file} cannot be read: {error.strerror}. The bank is incomplete.") from error
    if hashlib.sha256(data).hexdigest() != checksum:
        raise BankError(f"{file} is damaged or belongs to another bank: its checksum is not the one in {_JSON}.")
    try:
        return dict(load(data))
    except SafetensorError as error:
        raise BankError(f"{file} is not a safetensors file: {error}.") from error


def _bank(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> PromptBank:
    fingerprint = description["fingerprint"]
    return PromptBank(
        [_prompt(entry, tensors) for entry in description["prompts"]],
        fingerprint=None if fingerprint is None else Fingerprint.from_dict(fingerprint),
        selectors={name: _state(name, entry, tensors) for name, entry in description["selectors"].items()},
        provenance=description["provenance"],
    )


def _prompt(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Prompt:
    if unknown := set(entry) - _PROMPT_KEYS:
        raise BankError(f"unknown keys {sorted(unknown)} in prompt {entry.get('name')!r}.")
    name = entry["name"]
    if entry["kind"] == "text":
        return Prompt(name, text=entry["text"], provenance=entry["provenance"])
    embedding = _tensor(tensors, _prompt_key(name))  # (n, d)
    if embedding.shape[0] != entry["num_virtual_tokens"]:
        raise BankError(f"prompt {name!r} has {embedding.shape[0]} tokens, not {entry['num_virtual_tokens']}.")
    return Prompt(name, embedding=embedding, provenance=entry["provenance"])


def _state(name: str, entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SelectorState:
    named = {key: _tensor(tensors, _selector_key(name, key)) for key in entry["tensors"]}
    return SelectorState(config=entry["config"], tensors=named)


def _tensor(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in tensors:
        raise BankError(f"tensor {key!r} is missing from {_TENSORS}.")
    return tensors[key]
