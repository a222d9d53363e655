"""How long work tells how far it has come."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Observer", "Silent"]


class Observer(Protocol):
    """Is told of progress."""

    def stage(self, name: str, total: int | None) -> None:
        """A new stage of ``total`` units began."""

    def advance(self, count: int) -> None:
        """``count`` more units of the stage are done."""

    def losses(self, train: float, held_out: float) -> None:
        """Where the tuning that is the stage stands: its last measured losses."""

    def note(self, message: str) -> None:
        """Something the user should know."""


class Silent:
    """An observer that tells nobody."""

    def stage(self, name: str, total: int | None) -> None:
        """Say nothing."""

    def advance(self, count: int) -> None:
        """Say nothing."""

    def losses(self, train: float, held_out: float) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say nothing."""
