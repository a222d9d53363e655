"""Files that are written whole or not at all, and their checksums."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from idp.errors import OutputError

__all__ = ["atomic_write_bytes", "atomic_write_text", "json_text", "sha256_of"]

_CHUNK = 1 << 20


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one, never a part.

    The bytes go to a temporary file in the same folder, reach the disk, and then replace `path` in one step.
    Missing parent folders are made.

    Args:
        path: the file to write.
        data: its whole content.

    Raises:
        OutputError: the folder is read-only, is not a folder, or the disk is full. An existing file is left as it was.
    """
    target = Path(path)
    # Made by `open` itself rather than by `tempfile`, so that the file gets the permissions of any other new file.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(_explain(target, error)) from error
    finally:
        with contextlib.suppress(OSError):  # gone already when all went well
            temporary.unlink()


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 with the guarantees of `atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode("utf-8"))


def json_text(value: Any) -> str:
    """Return `value` as JSON with sorted keys, two spaces of indent and a final newline: same value, same bytes.

    Raises:
        TypeError: `value` holds something JSON has no form for.
        ValueError: `value` holds a NaN or an infinity, which JSON cannot express.

    Example:
        >>> json_text({"b": 1, "a": 2}).splitlines()
        ['{', '  "a": 2,', '  "b": 1', '}']
    """
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits, reading a megabyte at a time."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _explain(target: Path, error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    return f"cannot write {target}: {reason}. Choose a folder that can be written to and has free space."
