"""Bars for terminals, lines for logs."""

from __future__ import annotations

import io
import math
import sys

import pytest
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from idp.cli.progress import Bars, Count, Lines, Losses, Time, clock, progress


@pytest.fixture
def bars() -> Bars:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    return Bars(Progress(TextColumn("{task.description}"), BarColumn(), Count(), Losses(), Time(), console=console))


def drawn(bars: Bars) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(bars._progress.get_renderable())
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_lines_say_one_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(sys.stderr)
    lines.stage("loading tiny", None)
    lines.stage("router", 4500)
    lines.advance(4500)
    lines.note("no dense model")
    assert capsys.readouterr() == ("", "loading tiny\nrouter (4,500 steps)\nnote: no dense model\n")


def test_of_several_processes_only_the_first_is_heard(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with progress() as observer:
        observer.stage("starting", None)
        observer.note("no dense model")
        print("100%|####|", file=sys.stderr)  # a library's bar
    assert capsys.readouterr() == ("", "")


def test_not_a_terminal_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as observer:
        assert isinstance(observer, Lines)
        observer.stage("starting", None)
        print("100%|####|", file=sys.stderr)  # a library's bar
    assert capsys.readouterr().err == "starting\n"


def test_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress() as observer:
        observer.stage("router", 2)
        observer.advance(2)
        observer.note("no dense model")
        print("100%|####|", file=sys.stderr)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "router" in captured.err
    assert "2/2" in captured.err
    assert "no dense model" in captured.err
    assert "####" not in captured.err


def test_a_stage_never_passes_its_end(bars: Bars) -> None:
    bars.stage("router", 3)
    bars.advance(2)
    assert "2/3" in drawn(bars)
    bars.advance(100)
    assert "3/3" in drawn(bars)


def test_losses_stand_beside_the_bar_once_they_are_known(bars: Bars) -> None:
    bars.losses(1.0, 2.0)  # before any stage
    bars.stage("static", 3)
    assert "held out" not in drawn(bars)
    bars.losses(math.nan, 2.5)
    assert "held out 2.500" in drawn(bars)
    assert "train" not in drawn(bars)
    bars.losses(2.25, 2.375)
    assert "train 2.250, held out 2.375" in drawn(bars)
    bars.stage("losses under every prompt", 3)
    assert drawn(bars).count("held out") == 1


def test_a_new_stage_finishes_the_one_before(bars: Bars) -> None:
    bars.stage("loading", None)
    bars.advance(5)
    bars.stage("static", 10)
    bars.advance(1)
    bars.stage("router", 10)
    first, second, third = bars._progress.tasks
    assert first.finished
    assert second.finished
    assert not third.finished
    assert "10/10" in drawn(bars)


def test_advance_before_a_stage_is_harmless(bars: Bars) -> None:
    bars.advance(1)
    bars.finish()
    assert bars._progress.tasks == []


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (75, "1:15"), (3675, "1:01:15")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
