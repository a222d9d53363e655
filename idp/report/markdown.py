"""A report in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from idp.report.content import Report
from idp.report.tables import Table

__all__ = ["table_lines", "to_markdown"]


def to_markdown(report: Report) -> str:
    """Return the report as Markdown, without pictures."""
    lines = [f"# {report.title}: what compression cost, and what prompts give back", ""]
    lines += [f"**{line}**\n" for line in report.headline]
    lines += ["## Arms", "", *table_lines(report.arms)]
    if report.seeds is not None:
        lines += ["## Over seeds", "", *table_lines(report.seeds)]
    lines += [f"- {note}" for note in report.notes] + [""]
    lines += [*[f"- **{name}**: {what}" for name, what in report.about.items()], ""]
    for title, tables in (
        ("Sets of tasks", report.sets),
        ("Pairs of arms on sets of tasks", report.sets_pairs),
        ("Items", report.fates),
        ("Tasks", report.tasks),
        ("Pairs of arms", report.pairs),
    ):
        lines += _by_run(title, tables)
    lines += _facts("Prompts chosen", report.chosen) + _facts("What was compared", report.compared)
    lines += ["## Repeat it", "", "```sh", *report.repeat, "```", ""]
    return "\n".join([*lines, *_facts("Environment", report.environment)])


def _facts(title: str, facts: Mapping[str, Mapping[str, str]]) -> list[str]:
    filled = {label: found for label, found in facts.items() if found}
    lines = [f"## {title}", ""] if filled else []
    for label, found in filled.items():
        lines += [*_label(label, facts), *[f"- {name}: {value}" for name, value in found.items()], ""]
    return lines


def _by_run(title: str, tables: Mapping[str, Table]) -> list[str]:
    filled = {label: table for label, table in tables.items() if table.rows}
    lines = [f"## {title}", ""] if filled else []
    for label, table in filled.items():
        lines += [*_label(label, tables), *table_lines(table)]
    return lines


def _label(label: str, among: Mapping[str, object]) -> list[str]:
    return [f"### {label}", ""] if len(among) > 1 else []


def table_lines(table: Table) -> list[str]:
    """A table in Markdown, with an empty line behind it."""
    rule = ["---"] * table.words + ["---:"] * (len(table.headers) - table.words)
    return [_row(row) for row in (table.headers, rule, *table.rows)] + [""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
