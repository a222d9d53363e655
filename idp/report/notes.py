"""What a reader of an evaluation's tables must know."""

from __future__ import annotations

from collections.abc import Iterator

from idp.report.run import Run, interval_in
from idp.report.words import percent, points

__all__ = ["notes"]

_BOUND = "oracle"
_FEW = 10
"""Percentile intervals of fewer items are too narrow."""


def notes(run: Run) -> list[str]:
    """Return what to say below the tables of an evaluation, a line each."""
    idp = run.idp
    lines = ["Accuracies in percent; the mean is over the tasks without a star."]
    for task in run.tasks:
        lines += _of_task(run, task)
    if (found := idp["divergence"]) is not None:
        lines.append(
            f"Divergence (KL) is that of the next token from the dense model's, over its {found['top_k']} likeliest "
            f"tokens and all others together, on {sum(found['rows'].values())} contexts and texts of the tasks."
        )
    if (limit := idp["settings"]["text_limit"]) is not None:
        lines.append(f"Of a running text no more than {limit} documents were read (--text-limit).")
    if idp["detectable_difference"] is not None:
        lines.append(
            f"This many items detect a difference of {100 * idp['detectable_difference']:.1f} points between two arms "
            "like routers and static (5 % level, 80 % power)."
        )
    if few := [task for task in run.in_mean if run.count(task) < _FEW]:
        lines.append(
            f"Fewer than {_FEW} items were asked of {len(few)} of the tasks in the mean: too few for intervals and p "
            "to be trusted, and where there is a single one no interval is stated."
        )
    if idp["gap"] is not None and not (gap := interval_in(idp["gap"])).low > 0:
        why = (
            "it helped" if gap.high < 0 else "the interval touches nought" if gap.high >= 0 else "no interval is known"
        )
        lines.append(f"Compression cost {points(gap)} points: {why}, so no share of it can be stated.")
    elif idp["gap"] is None and not run.in_mean:
        lines.append("No task counts into a mean, so no share of what compression cost can be stated.")
    elif idp["gap"] is None:
        lines.append("Without a dense and a compressed arm no share of what compression cost can be stated.")
    return lines + list(idp["notes"])  # arms that failed are among them


def _of_task(run: Run, task: str) -> Iterator[str]:
    idp, metric = run.idp, run.idp["metrics"][task]
    if task in idp["controls"]:
        chance = f" (chance {percent(idp['chance'][task])})" if task in idp["chance"] else ""
        yield f"{task} is the control on facts never seen in training: every arm should be at chance{chance}."
        if _BOUND in run.arms:
            yield (
                "What the oracle has above chance there is luck, not knowledge: in hindsight some prompt is right by "
                "accident. Its other columns hold such luck too."
            )
    elif not run.higher_is_better(task):
        yield f"{task} is a {metric.replace('_', ' ')}: lower is better."
    elif task not in run.in_mean:
        yield f"{task}: {metric} of all items together, times 100; no mean over items, so in none."
    elif task in idp["groups"]:
        yield f"{task} is {len(run.members(task))} tasks taken together, and one in the mean."
