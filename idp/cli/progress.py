"""Progress on stderr: bars with the time left on a terminal, one plain line per stage elsewhere."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from idp.cli.quiet import undisturbed
from idp.launch import rank

if TYPE_CHECKING:
    from idp.observer import Observer


class Lines:
    """An observer for logs and pipes: a line when a stage begins.

    Args:
        stream: where the lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def stage(self, name: str, total: int | None) -> None:
        """Say what begins, and how much it is."""
        print(name if total is None else f"{name} ({total:,} steps)", file=self._stream, flush=True)

    def advance(self, count: int) -> None:
        """Say nothing: a log is not an animation."""

    def losses(self, train: float, held_out: float) -> None:
        """Say nothing: who wants the curves finds them in a file."""

    def note(self, message: str) -> None:
        """Say it."""
        print(f"note: {message}", file=self._stream, flush=True)


class Bars:
    """An observer for terminals: a bar per stage.

    Args:
        progress: where the bars are drawn.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._current: Task | None = None

    def stage(self, name: str, total: int | None) -> None:
        """Finish the bar before, and begin one."""
        self.finish()
        number = self._progress.add_task(name, total=total)
        self._current = next(task for task in self._progress.tasks if task.id == number)

    def advance(self, count: int) -> None:
        """Move the bar, never past its end."""
        task = self._current
        if task is not None and task.total is not None:
            self._progress.update(task.id, completed=min(task.completed + count, task.total))

    def losses(self, train: float, held_out: float) -> None:
        """Write them beside the bar."""
        if self._current is not None:
            self._progress.update(self._current.id, train=train, held_out=held_out)

    def note(self, message: str) -> None:
        """Print it above the bars."""
        self._progress.console.print(Text.assemble(("note: ", "yellow"), message))

    def finish(self) -> None:
        """Fill the bar of the stage that is over."""
        if self._current is not None:
            total = 1 if self._current.total is None else self._current.total
            self._progress.update(self._current.id, total=total, completed=total)
            self._progress.stop_task(self._current.id)
        self._current = None


class Count(ProgressColumn):
    """How many of how many, where that is known."""

    def render(self, task: Task) -> Text:
        """Draw it."""
        known = task.total is not None and task.total > 1
        return Text(f"{int(task.completed):,}/{int(task.total or 0):,}" if known else "", style="progress.percentage")


class Losses(ProgressColumn):
    """Training and held-out loss, where something is tuned; the first is not known before the first update."""

    def render(self, task: Task) -> Text:
        """Draw it."""
        known = {name: task.fields.get(name, math.nan) for name in ("train", "held_out")}
        words = (f"{name.replace('_', ' ')} {loss:.3f}" for name, loss in known.items() if not math.isnan(loss))
        return Text(", ".join(words))


class Time(ProgressColumn):
    """Time left while a stage runs, time taken when it is over."""

    def render(self, task: Task) -> Text:
        """Draw it."""
        if task.finished or task.time_remaining is None:
            return Text(clock(task.elapsed or 0), style="progress.elapsed")
        return Text(f"{clock(task.time_remaining)} left", style="progress.remaining")


def clock(seconds: float) -> str:
    """A duration as `m:ss` or `h:mm:ss`.

    Example:
        >>> clock(75), clock(3675)
        ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def progress(debug: bool = False) -> Iterator[Observer]:
    """An observer for the time of a long call, fit for what stderr is; nothing else reaches the screen meanwhile.

    Of several processes with the same work, only the first is heard.

    Args:
        debug: let libraries print.
    """
    if rank() > 0:
        with undisturbed(lambda message: None, debug):
            yield Lines(StringIO())
        return
    console = Console(file=sys.stderr)  # the stream of now, whatever takes its place later
    if not console.is_terminal or console.is_dumb_terminal:
        lines = Lines(sys.stderr)
        with undisturbed(lines.note, debug):
            yield lines
        return
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(),
        Count(),
        Losses(),
        Time(),
    )
    with Progress(*columns, console=console) as bars:
        observer = Bars(bars)
        with undisturbed(observer.note, debug):
            yield observer
        observer.finish()
