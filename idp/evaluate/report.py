"""What an evaluation leaves behind: `results.json` in lm-eval's schema, samples, and a report to read."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import idp
from idp.evaluate.arms import SELECTOR_OF, ArmResult, about, each_once
from idp.evaluate.evaluation import BOUND, Evaluation
from idp.evaluate.kept import samples_file
from idp.evaluate.stats.pairs import Paired
from idp.evaluate.stats.resampling import Interval
from idp.evaluate.tasks import EvalTask, columns
from idp.files import atomic_write_text


def write_report(evaluation: Evaluation) -> dict[str, Path]:
    """Write what an evaluation found; samples are there already.

    Returns:
        The paths by kind: ``results`` (JSON), ``report`` (Markdown), ``samples`` (the folder).

    Raises:
        OutputError: a file cannot be written; what was computed stays in ``answers.sqlite``.
    """
    folder = evaluation.settings.output_dir
    results, report = folder / "results.json", folder / "report.md"
    atomic_write_text(results, json.dumps(to_json(evaluation), indent=2, default=str, ensure_ascii=False) + "\n")
    atomic_write_text(report, to_markdown(evaluation))
    return {"results": results, "report": report, "samples": folder}


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """lm-eval's results of the main arm, its schema untouched, and the key ``"idp"`` with everything else."""
    settings = evaluation.settings
    output = dict(evaluation.main_arm.results)
    output["config"] = {
        "model": "idp",
        "model_args": _model_args(evaluation),
        "batch_size": settings.batch_size or "auto",
        "device": settings.device,
        "limit": settings.limit,
        "random_seed": settings.seed,
    }
    output["date"] = time.time()
    output |= {f"{name}_version": version(name) for name in ("lm_eval", "transformers", "torch")}
    return {**_finite(output), "idp": _finite(_idp(evaluation))}


def _model_args(evaluation: Evaluation) -> dict[str, Any]:
    """What to give lm-eval's `idp` model for the same results."""
    settings, arm = evaluation.settings, evaluation.main_arm.name
    selector = "none" if arm == "dense" else SELECTOR_OF.get(arm, arm)
    bank = None if selector == "none" else settings.bank or evaluation.bank["name"]
    return {"pretrained": settings.model, "bank": bank, "selector": selector}


def _idp(evaluation: Evaluation) -> dict[str, Any]:
    settings, tasks = evaluation.settings, columns(evaluation.tasks)
    return {
        "version": idp.__version__,
        "model": evaluation.model,
        "bank": evaluation.bank,
        "seed": settings.seed,
        "settings": {name: value for name, value in vars(settings).items() if name != "output_dir"},
        "metrics": {task.column: task.metric for task in tasks},
        "in_mean": [task.column for task in tasks if task.in_mean],
        "chance": {task.column: task.chance for task in tasks if task.chance is not None},
        "groups": {task.column: _members(evaluation, task) for task in tasks if task.group},
        "arms": {name: _arm(arm) for name, arm in evaluation.arms.items()},
        "gap": None if evaluation.gap is None else _with_interval(evaluation.gap),
        "gap_recovered": {name: _with_interval(gap) for name, gap in evaluation.gaps.items()},
        "paired": [_pair(pair) for pair in evaluation.paired],
        "detectable_difference": evaluation.detectable,
        "notes": evaluation.notes,
        "failed": evaluation.failed,
    }


def _with_interval(value: Interval) -> dict[str, Any]:
    return {"value": value.value, "ci95": [value.low, value.high]}


def _pair(pair: Paired) -> dict[str, Any]:
    found = asdict(pair)
    found["difference"], found["ci95"] = pair.difference.value, [pair.difference.low, pair.difference.high]
    return found


def _arm(arm: ArmResult) -> dict[str, Any]:
    return {
        "mean": arm.mean,
        "tasks": arm.values,
        "prompt_tokens": arm.prompt_tokens,
        "seconds": arm.seconds,
        "prompts_chosen": _chosen(arm),
        "samples": [samples_file(arm.name, task) for task in arm.samples],  # others may lie beside them
    }


def _chosen(arm: ArmResult) -> dict[str, int]:
    """How often each prompt was chosen."""
    counts: dict[str, int] = {}
    for rows in arm.samples.values():
        for row in each_once(rows):
            name = row["idp_prompt"] or "none"
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def _finite(value: Any) -> Any:
    """JSON has no NaN: what could not be computed is null."""
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as percent, a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def interval(gap: Interval | None) -> str:
    """A share with its interval, such as ``54 % [41, 66]``."""
    if gap is None or not math.isfinite(gap.value):
        return "no dense" if gap is None else "-"
    return f"{100 * gap.value:.0f} % [{100 * gap.low:.0f}, {100 * gap.high:.0f}]"


def points(difference: Interval) -> str:
    """A difference in points with its interval, such as ``+1.20 [+0.30, +2.10]``."""
    return f"{100 * difference.value:+.2f} [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"


def p_text(p: float | None) -> str:
    """A p-value as far as the permutations resolve it, a dash where there is none."""
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the main table."""
    tasks = columns(evaluation.tasks)
    names = [task.column.removeprefix("atlas_") + ("" if task.in_mean else " *") for task in tasks]
    headers = ["arm", "mean", "gap recovered [95 %]", *names, "prompt tokens", "seconds"]
    rows = []
    for name, arm in evaluation.arms.items():
        values = [percent(arm.values[t.column]) if t.higher_is_better else f"{arm.values[t.column]:.2f}" for t in tasks]
        title = f"{name} (bound)" if name == "oracle" else name
        gap = interval(evaluation.gaps.get(name))
        rows.append([title, percent(arm.mean, 2), gap, *values, f"{arm.prompt_tokens:.1f}", f"{arm.seconds:.1f}"])
    return headers, rows


def footnotes(evaluation: Evaluation) -> list[str]:
    """What a reader of the table must know."""
    lines = ["Accuracies in percent; the mean is over the tasks without a star."]
    for task in columns(evaluation.tasks):
        if task.control:
            chance = f" (chance {percent(task.chance)})" if task.chance else ""
            lines.append(
                f"{task.name} is the control on facts never seen in training: every arm should be at chance{chance}."
            )
            if BOUND in evaluation.arms:
                lines.append(
                    "What the oracle has above chance there is luck, not knowledge: in hindsight some prompt is right "
                    "by accident. Its other columns hold such luck too."
                )
        elif not task.higher_is_better:
            lines.append(f"{task.name} is a {task.metric.replace('_', ' ')}: lower is better.")
        elif not task.in_mean:
            lines.append(
                f"{task.name}: {task.metric} of all items together, times 100; no mean over items, so in none."
            )
        elif task.group:
            lines.append(
                f"{task.group} is {len(_members(evaluation, task))} tasks taken together, and one in the mean."
            )
    if evaluation.detectable is not None:
        lines.append(
            f"This many items detect a difference of {100 * evaluation.detectable:.1f} points between two arms like "
            "routers and static (5 % level, 80 % power)."
        )
    if evaluation.gap is not None and evaluation.gap.touches_zero:
        lines.append(
            f"Compression cost {points(evaluation.gap)} points: the interval touches nought, so no share of it can be "
            "stated."
        )
    return lines + evaluation.notes  # arms that failed are among them


def _members(evaluation: Evaluation, entry: EvalTask) -> list[str]:
    """The tasks that count as one with a task."""
    return [task.name for task in evaluation.tasks if task.column == entry.column]


def to_markdown(evaluation: Evaluation) -> str:
    """A report for people."""
    headers, rows = table(evaluation)
    model, bank = evaluation.model, evaluation.bank
    lines = [
        f"# {model['name']} with dynamic prompts",
        "",
        f"Model: {model['source']} ({model['compression'] or 'compression not stated'}), {model['dtype']}. "
        f"Bank: {bank['name']}, {len(list(bank['prompts']))} prompts. Seed {evaluation.settings.seed}.",  # type: ignore[call-overload]
        "",
        *_markdown_table(headers, rows),
        "",
        *[f"- {line}" for line in footnotes(evaluation)],
        "",
        "## Arms",
        "",
        *[f"- **{name}**: {about(name)}" for name in evaluation.arms],
        "",
        "## Paired differences",
        "",
        "In points of the mean over tasks, with a 95 % bootstrap interval and the p of a sign-flip permutation test; "
        "items gained and lost, with the p of McNemar's exact test over all items; and that p corrected for the number "
        "of pairs (Holm).",
        "",
        *_markdown_table(PAIRED, paired_rows(evaluation.paired)),
        "",
        "## Prompts chosen",
        "",
        *[f"- **{name}**: {_chosen_text(arm)}" for name, arm in evaluation.arms.items()],
        "",
    ]
    return "\n".join(lines)


PAIRED = ["arm", "minus", "difference [95 %]", "p", "gained : lost", "McNemar", "Holm"]
"""Headers of the table of differences."""


def paired_rows(pairs: Sequence[Paired]) -> list[list[str]]:
    """Rows of the table of differences."""
    return [
        [
            pair.a,
            pair.b,
            points(pair.difference),
            p_text(pair.p),
            "-" if pair.gained is None else f"{pair.gained} : {pair.lost}",
            p_text(pair.mcnemar),
            p_text(pair.holm),
        ]
        for pair in pairs
    ]


def _chosen_text(arm: ArmResult) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(_chosen(arm).items(), key=lambda pair: -pair[1]))


def _markdown_table(headers: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (headers, ["---"] * len(headers), *rows)]
