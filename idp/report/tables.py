"""The tables of a report, as text: headers and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from idp.report.comparison import over_seeds
from idp.report.items import fates
from idp.report.run import Run, interval_in
from idp.report.words import arm_title, interval, measure, p_text, percent, points

__all__ = ["Table", "arms_table", "fates_table", "pairs_table", "seeds_table", "tasks_table"]


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
    rows = [row for label, run in runs.items() for row in _arms(label, run)]
    several = len(runs) > 1
    headers = ["arm", "mean accuracy [95 %]", "gap recovered [95 %]", "prompt tokens", "seconds"]
    if several:
        return Table(["run", *headers], rows, words=2)
    return Table(headers, [row[1:] for row in rows])


def _arms(label: str, run: Run) -> list[list[str]]:
    rows = []
    for name, arm in run.arms.items():
        gap = run.idp["gap_recovered"].get(name)
        share = interval(None if gap is None else interval_in(gap))
        rows.append([label, arm_title(name), _mean(arm), share, f"{arm['prompt_tokens']:.1f}", f"{arm['seconds']:.1f}"])
    return rows + [[label, name, f"failed: {why}", "-", "-", "-"] for name, why in run.idp["failed"].items()]


def _mean(arm: Mapping[str, Any]) -> str:
    low, high = arm["ci95"] or (None, None)
    if low is None:
        return percent(arm["mean"], 2)
    return f"{percent(arm['mean'], 2)} [{percent(low)}, {percent(high)}]"


def pairs_table(run: Run) -> Table:
    """Every pair of arms."""
    headers = ["arm", "minus", "points [95 %]", "p", "p (Holm)", "gained : lost", "McNemar"]
    rows = [
        [
            pair["a"],
            pair["b"],
            points(interval_in({"value": pair["difference"], "ci95": pair["ci95"]})),
            p_text(pair["p"]),
            p_text(pair["holm"]),
            "-" if pair["gained"] is None else f"{pair['gained']} : {pair['lost']}",
            p_text(pair["mcnemar"]),
        ]
        for pair in run.idp["paired"]
    ]
    return Table(headers, rows, words=2)


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
