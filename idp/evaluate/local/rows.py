"""Reading local task files: JSON lines, plain or compressed."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from idp.errors import TaskError, brief
from idp.evaluate.local.columns import Row, Source

__all__ = ["find", "read"]

_OPEN: dict[str, Callable[..., IO[Any]]] = {".jsonl": open, ".jsonl.xz": lzma.open, ".jsonl.gz": gzip.open}
_UNREADABLE = (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError)
_TEXTS = {"question", "context", "text", "good", "bad", "solution"}
_LISTS = {"choices", "answers"}
_Line = tuple[int, Row]


def find(folder: Path, source: Source, split: str) -> list[Path]:
    """The files of one of the hub's splits; empty where one of them is missing."""
    stems = [folder / source.folder / name for name in source.files(split)]
    candidates = [[stem.with_name(stem.name + ending) for ending in _OPEN] for stem in stems]
    found = [next((path for path in paths if path.is_file()), None) for paths in candidates]
    there = [path for path in found if path is not None]
    return there if len(there) == len(stems) else []


def read(path: Path, source: Source, part: str | None) -> Iterator[Row]:
    """The rows of a file in the hub's columns.

    Args:
        path: the file.
        source: what is known of its data set.
        part: the rows that are wanted, where the data set has parts; None for all.

    Raises:
        TaskError: a file that cannot be read, or a line that is no row of the data set.
    """
    for number, row in _lines(path, path.stat().st_mtime_ns):
        try:
            if part is None or row[str(source.part)] == part:
                yield source.columns(_checked(row))
        except KeyError as error:
            raise TaskError(f"{path}, line {number}: the field {error} is missing.") from error
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise TaskError(f"{path}, line {number}: no row of {source.folder!r}: {brief(error)}") from error


@lru_cache(maxsize=4)  # the tasks of a group share a file
def _lines(path: Path, _changed: int) -> list[_Line]:
    try:
        with _opened(path) as file:
            return [(number, _parsed(path, number, line)) for number, line in enumerate(file, 1) if line.strip()]
    except _UNREADABLE as error:
        raise TaskError(f"{path} cannot be read: {brief(error)}") from error


def _opened(path: Path) -> IO[Any]:
    ending = path.name[path.name.index(".jsonl") :]
    return _OPEN[ending](path, "rt", encoding="utf-8")


def _parsed(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise TaskError(f"{path}, line {number} is not JSON: {brief(error)}") from error
    if not isinstance(row, dict):
        raise TaskError(f"{path}, line {number}: a row is a JSON object with named fields.")
    return row


def _checked(row: Row) -> Row:
    """Refuse what a template would make something else of.

    An answer is the place of one of the choices; a negative one would be counted from the end.
    """
    for name in _TEXTS & row.keys():
        if not isinstance(row[name], str):
            raise ValueError(f"{name!r} has to be a text, and is {row[name]!r}")
    for name in _LISTS & row.keys():
        words = row[name]
        if not (isinstance(words, list) and words and all(isinstance(each, str) for each in words)):
            raise ValueError(f"{name!r} has to be a list of texts, and is {words!r}")
    if "choices" in row and (isinstance(row["answer"], bool) or row["answer"] not in range(len(row["choices"]))):
        raise ValueError(f"the answer {row['answer']!r} is the place of none of {len(row['choices'])} choices")
    return row
