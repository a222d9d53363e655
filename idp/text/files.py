"""Text files, compressed or not, whose faults are reported with file and place."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from idp.errors import TaskError

__all__ = ["ending", "read_lines", "read_records"]

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def ending(path: Path) -> str:
    """What a file's name ends with, in lower case and without that of a compression.

    Example:
        >>> ending(Path("c4-train.00000.json.gz"))
        '.json'
    """
    return Path(path.stem if path.suffix.lower() in _OPENERS else path.name).suffix.lower()


def read_lines(path: Path) -> Iterator[str]:
    """Read UTF-8 line by line.

    Args:
        path: the file; `.gz`, `.bz2` and `.xz` are unpacked on the way.

    Yields:
        Each line without its end.

    Raises:
        TaskError: the file cannot be read, or holds something that is not UTF-8; the message names the first wrong
            byte, counted from 0 in the unpacked text.
    """
    opened = _OPENERS.get(path.suffix.lower(), open)
    place = 0
    try:
        with opened(path, "rb") as stream:
            for line in stream:
                yield _decoded(line, path, place)
                place += len(line)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise TaskError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error


def _decoded(line: bytes, path: Path, place: int) -> str:
    try:
        text = line.decode("utf-8")
        wrong = line.find(0)  # what UTF-16 puts between Latin letters, and no text holds
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        raise TaskError(
            f"{path} is not UTF-8: byte {place + wrong} of its text is 0x{line[wrong]:02x}. Convert the file, for "
            "instance with `iconv -f ENCODING -t UTF-8`."
        )
    return text.rstrip("\r\n").removeprefix("\ufeff" if place == 0 else "")


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read JSON lines; empty lines are passed over.

    Args:
        path: as for `read_lines`.

    Yields:
        The number of the line, from 1, and its object.

    Raises:
        TaskError: as for `read_lines`, or a line that is no JSON object; the message names it.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise TaskError(f"{path}, line {number}: not JSON ({reason}); write one object a line.") from error
        if not isinstance(row, dict):
            raise TaskError(f"{path}, line {number}: not a JSON object; write one object a line.")
        yield number, row
