"""What a model answered, kept on disk: arms share work, and an interrupted evaluation goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from idp.errors import OutputError

ANSWERS = "answers.sqlite"
"""The file of an evaluation's answers in its output folder."""


class Answer(NamedTuple):
    """A computed value (anything JSON can hold) and the seconds it took on its own share of a batch."""

    value: Any
    seconds: float


class Memo:
    """Answers by key, in memory or in one SQLite file.

    Args:
        path: the file; None keeps answers in memory only.
        scope: what all keys of this memo share: the model's fingerprint, the version of the code, ...

    Raises:
        OutputError: the file cannot be written or is not a memo.

    Example:
        >>> memo = Memo(None, "model")
        >>> memo.put([(("greet", 1), "hello", 0.5)])
        >>> memo.get([("greet", 1), ("greet", 2)])
        [Answer(value='hello', seconds=0.5), None]
    """

    def __init__(self, path: Path | None, scope: str) -> None:
        self._scope = scope
        try:
            self._db = sqlite3.connect(path or ":memory:")
            weakref.finalize(self, self._db.close)
            self._db.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, value TEXT, seconds REAL)")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.commit()
        except sqlite3.Error as error:
            raise OutputError(f"cannot keep answers in {path}: {error}. Choose another output folder.") from error

    def get(self, keys: Sequence[Any]) -> list[Answer | None]:
        """The answer of each key, None where there is none yet."""
        select = "SELECT value, seconds FROM answers WHERE key = ?"
        try:
            rows = [self._db.execute(select, (self._digest(key),)).fetchone() for key in keys]
        except sqlite3.Error as error:
            raise OutputError(f"cannot read the answers kept so far: {error}. Delete {ANSWERS}.") from error
        return [_answer(*row) if row else None for row in rows]

    def put(self, answers: Iterable[tuple[Any, Any, float]]) -> None:
        """Keep (key, value, seconds) triples; they are on disk when this returns."""
        rows = [(self._digest(key), json.dumps(value), seconds) for key, value, seconds in answers]
        try:
            with self._db:
                self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise OutputError(f"cannot keep answers: {error}. Is the disk full?") from error

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _digest(self, key: Any) -> bytes:
        return hashlib.sha256(f"{self._scope}|{json.dumps(key)}".encode()).digest()


def _answer(value: str, seconds: float) -> Answer | None:
    """An answer as it was kept; a damaged one is computed again."""
    try:
        return Answer(json.loads(value), seconds)
    except ValueError:
        return None


def forget(folder: Path) -> None:
    """Delete the answers that earlier runs left.

    Raises:
        OutputError: the file cannot be deleted.
    """
    for file in (folder / f"{ANSWERS}{suffix}" for suffix in ("", "-journal", "-wal", "-shm")):  # SQLite's own names
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot delete {file}: {error.strerror}. Choose another --output-dir.") from error
