"""Documents of running text, from files, folders and data sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from idp.errors import TaskError, brief, suggest
from idp.text.files import ending, read_lines, read_records

__all__ = ["END_OF_TEXT", "read_documents"]

END_OF_TEXT = "<|endoftext|>"
"""A line that holds only this stands between two documents of a text file."""

_TEXTS = (".txt", ".md")
_RECORDS = (".jsonl", ".json-lines", ".ndjson", ".json")  # C4 calls its JSON lines .json
_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?")


def read_documents(
    source: str, *, field: str = "text", split: str = "train", limit: int | None = None
) -> Iterator[str]:
    """Read documents one after the other, without holding them all.

    Args:
        source: a file of text (`.txt`, `.md`) or of JSON lines (`.jsonl`, `.ndjson`, `.json`), compressed with gzip,
            bzip2 or xz or not; a folder, of which all such files are read, in the order of their paths; or else the id
            of a data set of Hugging Face, as `id` or `id:config`, which is streamed. What exists as a path is one.
        field: where JSON lines and data sets keep the text.
        split: of a data set.
        limit: most documents that are read.

    Returns:
        The documents, those without anything but white space left out. Where there are none, the first step raises.

    Raises:
        TaskError: there is no such source, it has no text, or a part of it cannot be read; the message names the file
            and the byte or line.

    Example:
        >>> next(read_documents("allenai/c4:en", split="validation"))[:8]  # doctest: +SKIP
        'I thought'
    """
    if limit is not None and limit < 1:
        raise TaskError(f"cannot read {limit} documents; ask for 1 or more.")
    path = Path(source).expanduser()
    here = bool(source.strip()) and path.exists()
    documents = _of_path(path, field) if here else _of_data_set(source, field, split)
    return islice(_with_text(documents, source), limit)


def _with_text(documents: Iterable[str], source: str) -> Iterator[str]:
    empty = True
    for document in documents:
        if document.strip():
            empty = False
            yield document
    if empty:
        raise TaskError(f"{source} holds no text.")


def _of_path(path: Path, field: str) -> Iterator[str]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    known = [file for file in files if file.is_file() and ending(file) in (*_TEXTS, *_RECORDS)]
    if not known:
        endings = ", ".join((*_TEXTS, *_RECORDS))
        raise TaskError(f"{path} is no text that can be read: give a file with one of {endings} (or .gz, .bz2, .xz).")
    return chain.from_iterable(_of_file(file, field) for file in known)


def _of_file(file: Path, field: str) -> Iterator[str]:
    if ending(file) in _RECORDS:
        for number, row in read_records(file):
            yield _text(row, field, f"{file}, line {number}")
        return
    lines: list[str] = []
    for line in chain(read_lines(file), [END_OF_TEXT]):
        if line.strip() == END_OF_TEXT:
            yield "\n".join(lines)
            lines = []
        else:
            lines.append(line)


def _of_data_set(source: str, field: str, split: str) -> Iterator[str]:
    if not _ID.fullmatch(source) or ending(Path(source)) in (*_TEXTS, *_RECORDS):
        raise TaskError(f"there is no file or folder {source!r}, and it is not the id of a data set either.")
    name, _, config = source.partition(":")
    from datasets import load_dataset

    try:
        rows = load_dataset(name, config or None, split=split, streaming=True, trust_remote_code=False)
    except Exception as error:  # the hub, the network, the data set's own files: anything can fail here
        raise TaskError(
            f"there is no file or folder {source!r}, and the split {split!r} of a data set {source!r} cannot be had "
            f"from Hugging Face: {brief(error)}"
        ) from error
    return (_text(row, field, f"data set {source}, row {n}") for n, row in enumerate(_streamed(rows, source)))


def _streamed(rows: Iterable[dict[str, Any]], source: str) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except Exception as error:
        raise TaskError(f"data set {source} cannot be read on: {brief(error)}") from error


def _text(row: dict[str, Any], field: str, where: str) -> str:
    text = row.get(field)
    if not isinstance(text, str):
        raise TaskError(f"{where}: no text in a field {field!r}. {suggest(field, row)}")
    return text
