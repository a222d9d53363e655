"""Evaluations and listings as tables that stay readable in a narrow window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from idp.evaluate.evaluation import Evaluation

AFTER = 2
"""Columns of the report's table after those of the tasks."""

_ANY_WIDTH = 100_000


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print the main table, the paired differences and the footnotes."""
    from idp.evaluate.report import footnotes, paired_rows, run_of, table
    from idp.evaluate.tasks import columns
    from idp.report.tables import sets_table

    headers, rows = table(evaluation)
    before = len(headers) - AFTER - len(columns(evaluation.tasks))
    for part in main_tables(headers, rows, console, before=before, main=evaluation.main_arm.name):
        console.print(part, "")
    run = run_of(evaluation)
    if (sets := sets_table(run)) is not None:
        console.print(Text("Tasks that the dense model can do", style="bold"))
        console.print(*column_groups(sets.headers, sets.rows, console, words=sets.words, gap=2), "", sep="\n")
    if rows := paired_rows(evaluation.headline):
        console.print(Text("Paired differences in points", style="bold"))
        console.print(grid(["arm", "minus", "difference [95 %]", "p (Holm)"], rows, words=2), "")
    for line in footnotes(evaluation):
        console.print(Text(f"- {line}", style="dim"))


def main_tables(
    headers: list[str], rows: list[list[str]], console: Console, *, before: int, main: str = ""
) -> list[Table]:
    """One table where the console is wide enough, else a summary, and tasks as rows with arms as columns.

    Args:
        headers: of the report's table: arm, mean, shares, one for each task, tokens, seconds.
        rows: one an arm.
        console: whose width counts.
        before: how many columns stand before those of the tasks.
        main: the arm to be set off.
    """
    whole = grid(headers, rows, main=main)
    if fits(whole, console):
        return [whole]
    last = len(headers) - AFTER
    summary = [row[:before] + row[last:] for row in rows]
    tasks = [[name, *(row[place] for row in rows)] for place, name in enumerate(headers[:last]) if place >= before]
    arms = [_in_two_lines(row[0]) for row in rows]
    return [
        *column_groups(headers[:before] + headers[last:], summary, console, main=main, gap=2),
        *column_groups(["task", *arms], tasks, console),
    ]


def column_groups(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    console: Console,
    *,
    main: str = "",
    gap: int = 1,
    words: int = 1,
) -> list[Table]:
    """Tables with the same first columns, those of words, and as many of the others as fit, none cut or left out."""

    def made(columns: list[int]) -> Table:
        chosen = [*range(words), *columns]
        cells = [[row[c] for c in chosen] for row in rows]
        return grid([headers[c] for c in chosen], cells, main=main, words=words, gap=gap)

    tables, columns = [], [words]
    for column in range(words + 1, len(headers)):
        if not fits(made([*columns, column]), console):
            tables.append(made(columns))
            columns = []
        columns.append(column)
    return [*tables, made(columns)]


def fits(table: Table, console: Console) -> bool:
    """Whether a table can be printed without cutting a column."""
    options = console.options.update(max_width=_ANY_WIDTH)
    return console.measure(table, options=options).maximum <= console.width


def grid(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, main: str = "", words: int = 1, gap: int = 2
) -> Table:
    """A plain table: words to the left, numbers to the right, one row set off.

    Args:
        headers: of the columns.
        rows: cells as text.
        main: the first cell of the row to be set off.
        words: how many columns, from the left, hold words.
        gap: blanks between columns.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    for place, header in enumerate(headers):
        justify: JustifyMethod = "left" if place < words else "right"
        table.add_column(Text(header), justify=justify, no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row), style="bold" if main and row[0] == main else None)
    return table


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print things, at least one, all with the same keys: as rows, or one below the other where words would be cut."""
    console = Console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    cells = [{key: _cell(key, value) for key, value in row.items()} for row in rows]
    for header in rows[0]:
        table.add_column(header, no_wrap=not any(" " in row[header].plain for row in cells), overflow="fold")
    for row in cells:
        table.add_row(*row.values())
    if console.measure(table, options=console.options.update(max_width=_ANY_WIDTH)).minimum <= console.width:
        console.print(table)
        return
    for place, row in enumerate(cells):
        console.print(*([""] if place else []), _one_below_the_other(row), sep="\n")


def _one_below_the_other(cells: Mapping[str, Text]) -> Table:
    """A thing on lines of its own, one for each value that it has."""
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    for key, cell in cells.items():
        if cell:
            lines.add_row(key, cell)
    return lines


def _cell(key: str, value: Any) -> Text:
    said = ("yes" if value else "no") if isinstance(value, bool) else "" if value is None else str(value)
    return Text(" ".join(said.split()), style="cyan" if key == "name" else "")


def _in_two_lines(arm: str) -> str:
    """Break a long name where it has a joint."""
    return arm.replace(" (", "\n(").replace("-", "-\n", 1) if len(arm) > 10 else arm
