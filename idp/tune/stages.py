"""How long every stage of a build took, and how much memory the build needed."""

from __future__ import annotations

import logging
import sys
import time

from idp.observer import Observer

__all__ = ["Stages", "peak_memory"]

_LOG = logging.getLogger(__name__)


class Stages:
    """An observer that takes the time of every stage, logs it, and passes everything on.

    Args:
        observer: who is told.

    Attributes:
        seconds: what every stage took that is over; stages of one name are added up.
    """

    def __init__(self, observer: Observer) -> None:
        self.seconds: dict[str, float] = {}
        self._observer, self._current, self._began = observer, "", 0.0

    def stage(self, name: str, total: int | None) -> None:
        """End the stage before, and begin one."""
        self.finish()
        self._current, self._began = name, time.monotonic()
        self._observer.stage(name, total)

    def advance(self, count: int) -> None:
        """Pass it on."""
        self._observer.advance(count)

    def losses(self, train: float, held_out: float) -> None:
        """Pass them on."""
        self._observer.losses(train, held_out)

    def note(self, message: str) -> None:
        """Log it, and pass it on."""
        _LOG.info("%s", message)
        self._observer.note(message)

    def finish(self) -> None:
        """End the last stage."""
        if self._current:
            took = time.monotonic() - self._began
            self.seconds[self._current] = self.seconds.get(self._current, 0.0) + took
            _LOG.info("%s: %.1f s, at most %s in memory so far", self._current, took, _size(peak_memory()))
        self._current = ""


def _size(size: int | None) -> str:
    return "an unknown size" if size is None else f"{size / 1e9:.2f} GB"


def peak_memory() -> int | None:
    """Most bytes that this process had in memory so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
