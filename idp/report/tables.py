"""The tables of a report, as text: headers and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from idp.report.comparison import over_seeds
from idp.report.items import fates
from idp.report.run import Run, interval_in
from idp.report.words import arm_title, interval, measure, p_text, percent, points

__all__ = [
    "Table",
    "arms_table",
    "divergence_cells",
    "fates_table",
    "pairs_table",
    "seeds_table",
    "sets_pairs_table",
    "sets_table",
    "tasks_table",
]


@dataclass(frozen=True)
class Table:
    """A table to be read.

    Attributes:
        headers: of its columns.
        rows: cells as text.
        words: how many columns, from the left, hold words; the others hold numbers.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


def arms_table(runs: Mapping[str, Run]) -> Table:
    """Every arm's mean, share of the gap and costs; those that failed with the reason."""
    width = len(DIVERGENCE) if any(run.idp["divergence"] for run in runs.values()) else 0
    rows = [row for label, run in runs.items() for row in _arms(label, run, width)]
    several = len(runs) > 1
    shares = ["gap recovered [95 %]", *(DIVERGENCE if any(run.idp["divergence"] for run in runs.values()) else [])]
    headers = ["arm", "mean accuracy [95 %]", *shares, "prompt tokens", "seconds"]
    if several:
        return Table(["run", *headers], rows, words=2)
    return Table(headers, [row[1:] for row in rows])


DIVERGENCE = ("divergence, nats a token", "divergence given back [95 %]")
"""Columns of the divergence from the dense model."""


def divergence_cells(divergence: Mapping[str, Any] | None, arm: str) -> list[str]:
    """An arm's divergence from the dense model, and the share of it that the arm gives back; dashes where not known."""
    if divergence is None or arm not in divergence["nats"]:
        return ["-"] * len(DIVERGENCE)
    value = divergence["nats"][arm]["value"]
    return ["0" if arm == "dense" else f"{value:.3f}", interval(interval_in(divergence["given_back"][arm]))]


def _arms(label: str, run: Run, width: int) -> list[list[str]]:
    rows = []
    for name, arm in run.arms.items():
        gap = run.idp["gap_recovered"].get(name)
        share = interval(None if gap is None else interval_in(gap))
        cells = [share, *divergence_cells(run.idp["divergence"], name)[:width]]
        rows.append(
            [label, arm_title(name), _mean(arm), *cells, f"{arm['prompt_tokens']:.1f}", f"{arm['seconds']:.1f}"]
        )
    dashes = ["-"] * (3 + width)
    return rows + [[label, name, f"failed: {why}", *dashes] for name, why in run.idp["failed"].items()]


def _mean(arm: Mapping[str, Any]) -> str:
    low, high = arm["ci95"] or (None, None)
    if low is None:
        return percent(arm["mean"], 2)
    return f"{percent(arm['mean'], 2)} [{percent(low)}, {percent(high)}]"


def sets_table(run: Run) -> Table | None:
    """Sets of tasks: every arm's mean, its share of the gap, and what is left of it to the repaired dense model."""
    sets = run.idp["sets"]
    if not sets:
        return None
    some = next(iter(sets.values()))
    left = bool(some["gap_left_to_repaired_dense"])
    headers = ["tasks", "arm", "mean accuracy [95 %]", "gap recovered [95 %]"]
    headers += ["left of the gap to dense-static [95 %]"] if left else []
    rows = [
        [f"{name} ({len(found['tasks'])})", arm_title(arm), *_set_cells(found, arm, left)]
        for name, found in sets.items()
        for arm in found["means"]
    ]
    return Table(headers, rows, words=2)


def _set_cells(found: Mapping[str, Any], arm: str, left: bool) -> list[str]:
    cells = [_mean({"mean": found["means"][arm]["value"], **found["means"][arm]})]
    cells.append(interval(interval_in(found["gap_recovered"][arm])))
    remaining = found["gap_left_to_repaired_dense"].get(arm)
    return [*cells, *([interval(None if remaining is None else interval_in(remaining))] if left else [])]


def sets_pairs_table(run: Run) -> Table | None:
    """Sets of tasks: the pairs of arms that matter most."""
    rows = [[name, *_pair(pair)] for name, found in run.idp["sets"].items() for pair in found["paired"]]
    return Table(["tasks", *_PAIR], rows, words=3) if rows else None


_PAIR = ("arm", "minus", "points [95 %]", "p", "p (Holm)", "gained : lost", "McNemar")


def pairs_table(run: Run) -> Table:
    """Every pair of arms."""
    return Table(_PAIR, [_pair(pair) for pair in run.idp["paired"]], words=2)


def _pair(pair: Mapping[str, Any]) -> list[str]:
    return [
        pair["a"],
        pair["b"],
        points(interval_in({"value": pair["difference"], "ci95": pair["ci95"]})),
        p_text(pair["p"]),
        p_text(pair["holm"]),
        "-" if pair["gained"] is None else f"{pair['gained']} : {pair['lost']}",
        p_text(pair["mcnemar"]),
    ]


def tasks_table(run: Run) -> Table:
    """Every task's judged metric, arm by arm."""
    arms = list(run.arms)
    return Table(["task", "metric", "items", "chance", *arms], [_task(run, task, arms) for task in run.tasks], words=2)


def _task(run: Run, task: str, arms: Sequence[str]) -> list[str]:
    metric = run.idp["metrics"][task]
    values = [run.arms[arm]["tasks"][task] for arm in arms]
    star = "" if task in run.in_mean else " *"
    chance = percent(run.idp["chance"].get(task))
    shown = [measure(value, run.higher_is_better(task)) for value in values]
    return [f"{task}{star}", metric, str(run.count(task)), chance, *shown]


def fates_table(run: Run, arm: str) -> Table | None:
    """Items lost by compression and given back by an arm."""
    found = fates(run, arm)
    if not found:
        return None
    rows = [[each.task, str(each.lost), _share(each.regained, each.lost), str(each.broken)] for each in found]
    lost, back = sum(each.lost for each in found), sum(each.regained for each in found)
    rows.append(["all", str(lost), _share(back, lost), str(sum(each.broken for each in found))])
    return Table(["task", "lost by compression", f"regained by {arm}", f"newly wrong with {arm}"], rows)


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.0f} %)" if whole else str(part)


def seeds_table(runs: Sequence[Run]) -> Table | None:
    """Differences over several seeds, for each model and bank of which there are some."""
    found = over_seeds(runs)
    if not found:
        return None
    rows = [[row.model, row.a, row.b, points(row.found.difference), f"{100 * row.found.spread:.2f}"] for row in found]
    return Table(["model", "arm", "minus", "points over seeds [95 %]", "spread between seeds"], rows, words=3)
