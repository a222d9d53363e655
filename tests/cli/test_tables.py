"""Tables stay whole at any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from idp.cli.tables import column_groups, fits, grid, main_tables, print_rows

TASKS = ["easy", "hard", "support", "short", "trivia", "pair", "endings", "last_word", "text *", "control *"]
HEADERS = ["arm", "mean", "gap recovered [95 %]", *TASKS, "prompt tokens", "seconds"]
ARMS = ["dense", "compressed", "static", "random", "attention", "attention-calibrated", "router", "oracle (bound)"]
ROWS = [
    [arm, "61.50", "54 % [41, 66]", *(f"{10 * place + column}.5" for column in range(len(TASKS))), "16.0", "33.1"]
    for place, arm in enumerate(ARMS)
]


def printed(width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    for part in main_tables(HEADERS, ROWS, console, before=3, main="router"):
        console.print(part, "")
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("width", [50, 60, 80, 100, 120, 160, 200])
def test_nothing_is_cut_or_lost(width: int) -> None:
    lines = printed(width)
    text = "\n".join(lines)
    assert "…" not in text
    assert max(map(len, lines)) <= width
    for name in (*TASKS, *(arm for arm in ARMS if arm.isalpha()), "gap recovered [95 %]", "prompt tokens", "seconds"):
        assert name in text
    for row in ROWS:
        assert all(value in text.split() for value in row[3:-2])


def test_wide_console_has_one_table_narrow_ones_two() -> None:
    assert len(main_tables(HEADERS, ROWS, Console(width=200), before=3)) == 1
    assert len(main_tables(HEADERS, ROWS, Console(width=100), before=3)) == 2
    assert len(main_tables(HEADERS, ROWS, Console(width=80), before=3)) == 2


def test_columns_of_one_task_stand_in_its_row() -> None:
    lines = printed(100)
    row = next(line for line in lines if line.startswith("last_word"))
    assert row.split()[1:] == [values[3 + TASKS.index("last_word")] for values in ROWS]


def test_a_column_too_wide_for_the_console_gets_a_table_of_its_own() -> None:
    tables = column_groups(["task", "x" * 30, "y" * 30], [["easy", "1", "2"]], Console(width=40))
    assert len(tables) == 2
    assert all(fits(table, Console(width=40)) for table in tables)


def test_text_is_not_taken_for_markup() -> None:
    console = Console(file=io.StringIO(), width=60)
    console.print(grid(["arm", "[95 %]"], [["[bold]", "[1, 2]"]]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[bold]" in text
    assert "[95 %]" in text


THINGS = [
    {"name": "first", "options": "bits=4,group=auto,symmetric=False", "about": "What it does.", "made": True},
    {"name": "second", "options": "", "about": "Another thing that is done.", "made": None},
]


@pytest.mark.parametrize(("width", "in_rows"), [(100, True), (70, True), (50, False), (45, False)])
def test_things_stand_one_below_the_other_where_rows_would_cut_words(
    width: int, in_rows: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_rows(THINGS)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert (out.split()[:4] == ["name", "options", "about", "made"]) is in_rows
    assert {"first", "second", "bits=4,group=auto,symmetric=False", "done.", "yes"} <= set(out.split())


def test_a_value_that_is_not_there_has_no_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "45")
    print_rows(THINGS)
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines == ["name", "options", "about", "made", "name", "about"]
