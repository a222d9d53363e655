"""Running text: from files, folders and data sets to rows of equally many tokens."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idp.errors import TaskError, suggest
from idp.tune.examples import Example
from idp.tune.textfiles import ending, read_lines, read_records

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["END_OF_TEXT", "pack", "read_documents"]

_LOG = logging.getLogger(__name__)

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
            f"from Hugging Face: {_one_line(error)}"
        ) from error
    return (_text(row, field, f"data set {source}, row {n}") for n, row in enumerate(_streamed(rows, source)))


def _streamed(rows: Iterable[dict[str, Any]], source: str) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except Exception as error:
        raise TaskError(f"data set {source} cannot be read on: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _text(row: dict[str, Any], field: str, where: str) -> str:
    text = row.get(field)
    if not isinstance(text, str):
        raise TaskError(f"{where}: no text in a field {field!r}. {suggest(field, row)}")
    return text


def pack(
    lm: LanguageModel, documents: Iterable[str], row_tokens: int, *, group: str = "text", rows: int | None = None
) -> list[Example]:
    """Cut documents into rows of equally many tokens, across their borders.

    Documents are tokenized without special tokens and joined by the end token (by an empty line where the tokenizer has
    none). Of a row of `L` tokens the first is read and not predicted, which leaves `L - 1` targets.

    Args:
        lm: the model whose tokenizer is used.
        documents: texts; no more of them are read than the rows need.
        row_tokens: length `L` of a row.
        group: the task that the rows are said to come from.
        rows: most rows; None for all.

    Returns:
        The rows; an incomplete one at the end is kept only where it is the only one.

    Raises:
        TaskError: less than two tokens of text, or a length that makes no row or does not fit into the model's context.

    Source: arXiv 2305.11186 (`compress-then-prompt`), which cuts its corpus so.

    Example:
        >>> [row.is_text for row in pack(lm, ["The river runs past the mill."], 4)]  # doctest: +SKIP
        [True]
    """
    if not 2 <= row_tokens <= lm.max_length:
        raise TaskError(f"rows of {row_tokens} tokens are not possible; {lm.name} can be given 2 to {lm.max_length}.")
    if rows is not None and rows < 1:
        raise TaskError(f"cannot make {rows} rows of text; ask for 1 or more.")
    tokens = _tokens(lm, documents)
    found: list[tuple[int, ...]] = []
    while (rows is None or len(found) < rows) and (row := tuple(islice(tokens, row_tokens))):
        if found and len(row) < row_tokens:
            break
        found.append(row)
    if not found or len(found[0]) < 2:
        raise TaskError("the text has less than two tokens, so there is nothing to predict; give more of it.")
    if rows is not None and len(found) < rows:
        _LOG.warning("the text gives %d rows of %d tokens, not %d", len(found), row_tokens, rows)
    return [Example(row[:1], (row[1:],), 0, group) for row in found]


def _tokens(lm: LanguageModel, documents: Iterable[str]) -> Iterator[int]:
    def tokenized(text: str) -> list[int]:
        ids: list[int] = lm.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    between = tokenized("\n\n") if lm.eos_token_id is None else [lm.eos_token_id]
    for number, document in enumerate(documents):
        if number:
            yield from between
        yield from tokenized(document)
