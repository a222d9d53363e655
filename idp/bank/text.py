"""Curated text prompts, kept as YAML."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import BankError, suggest
from idp.files import atomic_write_text, read_yaml, require_free
from idp.resources import prompt_bank_dir

__all__ = ["KINDS", "load_text_prompts", "save_text_prompts", "text_bank"]

_LOG = logging.getLogger(__name__)

KINDS = ("demonstration", "domain", "instruction", "repair")
"""What a text prompt tries: to show, to name the subject, to instruct, or to remind of the compression."""

_KIND = "instruction"
_ODD_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
_REQUIRED = {"name", "text", "kind"}
_ALLOWED = _REQUIRED | {"note"}


def load_text_prompts(path: str | os.PathLike[str]) -> list[Prompt]:
    """Read text prompts from a YAML file, or from all of a folder's in the order of their names.

    A file is a list of entries with `name`, `text`, `kind` (one of `KINDS`) and an optional `note`. The text is
    taken as it is: mind the space or line end that separates it from the input.

    Args:
        path: a `.yaml` file or a folder of them.

    Returns:
        The prompts, with `kind`, `note` and `source` (the file's name) as provenance.

    Raises:
        BankError: naming the file and the entry: not readable, not YAML, not a list, a field missing, unknown,
            empty or of the wrong type, or a name that occurs twice.

    Example:
        >>> from idp.resources import prompt_bank_dir
        >>> prompts = load_text_prompts(prompt_bank_dir() / "text")  # doctest: +SKIP
    """
    prompts: list[Prompt] = []
    where: dict[str, Path] = {}
    for file in _files(Path(path)):
        for prompt in _read(file):
            if prompt.name in where:
                raise BankError(f"{file}: prompt {prompt.name!r} is already in {where[prompt.name]}: rename one.")
            where[prompt.name] = file
            prompts.append(prompt)
    return prompts


def save_text_prompts(prompts: Iterable[Prompt], path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write text prompts as YAML that `load_text_prompts` reads: name, text, kind and note are kept, no more.

    Args:
        prompts: text prompts. One whose provenance names no kind out of `KINDS` becomes an instruction.
        path: a `.yaml` file.
        overwrite: replace the file that is there.

    Returns:
        The file.

    Raises:
        BankError: no prompts, a soft prompt among them, or a name that occurs twice.
        OutputError: something is there already, or the file cannot be written to.

    Example:
        >>> save_text_prompts([Prompt("brief", text="Be brief. ")], "mine.yaml")  # doctest: +SKIP
    """
    entries = [_entry(prompt) for prompt in PromptBank(list(prompts))]
    require_free(path, overwrite=overwrite)
    # No line is folded: what stands on one line is one line of the text.
    text = yaml.dump(entries, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)
    atomic_write_text(path, text)
    return Path(path)


def text_bank() -> PromptBank:
    """Return the bank of all text prompts that come with the package; it fits any model.

    Raises:
        BankError: a file of the package is broken.
    """
    folder = prompt_bank_dir() / "text"
    return PromptBank(load_text_prompts(folder), provenance={"source": "prompt_bank/text"})


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BankError(f"no text prompts at {path}: it is neither a YAML file nor a folder.")
    files = sorted(path.glob("*.yaml"))
    if not files:
        raise BankError(f"the folder {path} has no .yaml file with text prompts.")
    return files


def _read(file: Path) -> list[Prompt]:
    entries = read_yaml(file, BankError)
    if not isinstance(entries, list) or not entries:
        raise BankError(f"{file} is not a list of prompts with name, text and kind.")
    return [_prompt(file, number, entry) for number, entry in enumerate(entries, start=1)]


def _prompt(file: Path, number: int, entry: Any) -> Prompt:
    where = f"{file}, entry {number}"
    if not isinstance(entry, dict):
        raise BankError(f"{where}: expected name, text and kind, found {entry!r}.")
    _check_fields(where, entry)
    extra = {"note": entry["note"]} if "note" in entry else {}
    try:
        return Prompt(
            entry["name"], text=entry["text"], provenance={"kind": entry["kind"], "source": file.name, **extra}
        )
    except BankError as error:
        raise BankError(f"{where}: {error}") from error


def _check_fields(where: str, entry: dict[Any, Any]) -> None:
    if missing := sorted(_REQUIRED - set(entry)):
        raise BankError(f"{where}: {' and '.join(missing)} missing.")
    if unknown := sorted(str(key) for key in set(entry) - _ALLOWED):
        raise BankError(f"{where}: unknown field {unknown[0]!r}. {suggest(unknown[0], _ALLOWED)}")
    for key, value in entry.items():
        if not isinstance(value, str):
            raise BankError(f"{where}: {key} is {value!r}, which is not a string (put it in quotes).")
    if entry["kind"] not in KINDS:
        raise BankError(f"{where}: unknown kind {entry['kind']!r}. {suggest(entry['kind'], KINDS)}")


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _styled(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if _ODD_LINE_ENDS.search(text):  # only between double quotes are they not read as an ordinary line end
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _styled)


def _entry(prompt: Prompt) -> dict[str, str]:
    if prompt.text is None:
        raise BankError(f"prompt {prompt.name!r} is soft: it has no text that could be written as YAML.")
    kind, note = prompt.provenance.get("kind", _KIND), prompt.provenance.get("note")
    if kind not in KINDS:
        _LOG.warning("prompt %r is of kind %r, which YAML has no word for: it becomes %r", prompt.name, kind, _KIND)
        kind = _KIND
    described = {"name": prompt.name, "kind": kind}
    return described | ({"note": note} if isinstance(note, str) else {}) | {"text": prompt.text}
