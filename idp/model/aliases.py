"""What a model's name stands for: an alias, a folder, or a hub id."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from idp.errors import ModelError, suggest
from idp.resources import prompt_bank_dir

__all__ = ["ModelSpec", "aliases", "resolve"]

_PACKAGE = Path(__file__).resolve().parent.parent
_ALIASES = Path(__file__).with_name("aliases.yaml")
_IN_PACKAGE = "package:"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ModelSpec:
    """Where a model is, and what is known about it.

    Attributes:
        name: what the user called it.
        source: a local folder, or a hub id.
        compression: how it was compressed, in words; empty when not known.
        dense: folder or hub id of the model it was made from, or None when not known.
        bank: folder of a tuned prompt bank, or None when there is none.
        verified: whether a test of this project loads and runs it.
        note: what one should know before use.
        dtype: the type its published figures were measured in, or `"auto"`.
    """

    name: str
    source: str
    compression: str = ""
    dense: str | None = None
    bank: str | None = None
    verified: bool = False
    note: str = ""
    dtype: str = "auto"


def resolve(name: str | os.PathLike[str]) -> ModelSpec:
    """Find out what a name stands for, without loading or downloading anything.

    An alias comes first, then a folder, then a hub id (`organisation/model`).

    Args:
        name: what the user gave.

    Returns:
        Where the model is. A hub id is not looked up, so it may turn out not to exist.

    Raises:
        ModelError: no such alias (the near misses are named), or a folder that holds no model.

    Example:
        >>> resolve("llama-7b-4bit").source
        'TheBloke/LLaMa-7B-GPTQ'
    """
    try:
        text = os.fsdecode(name)
    except TypeError as error:
        raise ModelError(f"a model is named by an alias, a folder or a hub id, not by {name!r}.") from error
    if text in aliases():
        return aliases()[text]
    folder = Path(text).expanduser()
    if folder.exists() or _looks_like_path(text):
        return ModelSpec(name=text, source=str(_model_folder(folder)))
    if _HUB_ID.fullmatch(text):
        return ModelSpec(name=text, source=text)
    raise ModelError(
        f"unknown model {text!r}. {suggest(text, aliases())} A folder or a hub id (organisation/model) works as well."
    )


@cache
def aliases() -> Mapping[str, ModelSpec]:
    """Return every alias of `aliases.yaml`, in the order of the file."""
    return read_aliases(_ALIASES)


def read_aliases(path: Path) -> dict[str, ModelSpec]:
    """Read a file of aliases.

    Raises:
        ModelError: the file is not YAML, or an entry lacks a field or has an unknown one.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ModelError(f"{path} is not valid YAML: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} must map names to models.")
    return {name: _spec(path, name, entry) for name, entry in content.items()}


def _spec(path: Path, name: str, entry: Any) -> ModelSpec:
    known = {field.name for field in fields(ModelSpec)} - {"name", "dtype"}
    if not isinstance(entry, dict) or set(entry) - {"dtype"} != known:
        raise ModelError(f"{path}: the entry {name!r} must have exactly the fields {', '.join(sorted(known))}.")
    bank = entry["bank"]
    return ModelSpec(
        name=name,
        source=_locate(entry["source"]),
        compression=entry["compression"],
        dense=None if entry["dense"] is None else _locate(entry["dense"]),
        bank=None if bank is None else str(prompt_bank_dir() / bank),
        verified=entry["verified"],
        note=entry["note"],
        dtype=entry.get("dtype", "auto"),
    )


def _locate(source: str) -> str:
    """Turn `package:FOLDER` into the folder's path; leave a hub id as it is."""
    if source.startswith(_IN_PACKAGE):
        return str(_PACKAGE / source.removeprefix(_IN_PACKAGE))
    return source


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "~", os.sep)) or text.count("/") > 1 or text.endswith("/")


def _model_folder(folder: Path) -> Path:
    if not folder.exists():
        raise ModelError(f"there is no folder {folder}. Give the folder that save_pretrained() wrote, or a hub id.")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no model (no config.json). Give the folder that save_pretrained() wrote.")
    return folder


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
