"""A run's folder: one writer at a time, and what every arm made of every task, kept as soon as it is known."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from idp.errors import OutputError
from idp.files import atomic_write_text, file_name

__all__ = ["RunFolder", "TaskResult", "samples_file"]

_LOCK = ".lock"
_ARMS = "arms"
_REPORTS = ("results.json", "report.md", "report.html")


@dataclass(frozen=True)
class TaskResult:
    """What one arm made of one task.

    Attributes:
        task: its name.
        output: lm-eval's results of the task, without samples.
        samples: lm-eval's samples, with ``idp_prompt`` and ``idp_scores``.
        items: judged metric of each item; empty for tasks beside the mean.
        value: judged metric of the task.
        prompt_tokens: of all items together.
        seconds: of models and selection, as if computed for this arm alone.
        divergence: from the dense model, nats a token of each row that was read; empty where it was not measured.
    """

    task: str
    output: dict[str, Any]
    samples: list[dict[str, Any]] = field(repr=False)
    items: list[float] = field(repr=False)
    value: float
    prompt_tokens: float
    seconds: float
    divergence: list[float] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it found.

    Attributes:
        path: the folder; it is made when it is held.
    """

    path: Path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only run that writes here.

        Raises:
            OutputError: another one does, or nothing can be written here.
        """
        lock = FileLock(self.path / _LOCK, blocking=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"another run is writing to {self.path}: wait for it, or choose another --output-dir."
            ) from error
        except OSError as error:
            raise OutputError(f"cannot write to {self.path}: {error.strerror}. Choose another --output-dir.") from error
        try:
            yield
        finally:
            lock.release()  # the file stays: who deletes it may delete somebody else's

    def begin(self, *, anew: bool) -> None:
        """Take away the reports of a run before, which what comes now would not fit; `anew`, its results as well.

        Raises:
            OutputError: something cannot be deleted.
        """
        try:
            for name in _REPORTS:
                (self.path / name).unlink(missing_ok=True)
            if anew and (self.path / _ARMS).exists():
                shutil.rmtree(self.path / _ARMS)
        except OSError as error:
            raise OutputError(f"cannot write to {self.path}: {error.strerror}. Choose another --output-dir.") from error

    def get(self, arm: str, task: str, key: str) -> TaskResult | None:
        """What an arm made of a task under the same circumstances; None where that is not known, or damaged."""
        try:
            kept = json.loads(self._file(arm, task).read_text(encoding="utf-8"))
            text = (self.path / samples_file(arm, task)).read_text(encoding="utf-8")
            if (kept.pop("key"), kept.pop("samples_digest")) != (key, _digest(text)):
                return None
            return TaskResult(**kept, samples=[json.loads(line) for line in text.split("\n") if line])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def put(self, arm: str, result: TaskResult, key: str) -> None:
        """Keep what an arm made of a task; it is on disk when this returns.

        Raises:
            OutputError: it cannot be written.
        """
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in result.samples)
        known = asdict(result)
        del known["samples"]
        atomic_write_text(self.path / samples_file(arm, result.task), text)
        known |= {"key": key, "samples_digest": _digest(text)}
        atomic_write_text(self._file(arm, result.task), json.dumps(known, ensure_ascii=False))

    def _file(self, arm: str, task: str) -> Path:
        return self.path / _ARMS / file_name(arm) / f"{task}.json"


def samples_file(arm: str, task: str) -> str:
    """Name of the file of an arm's samples of a task."""
    return f"samples_{task}_{file_name(arm)}.jsonl"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
