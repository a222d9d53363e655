"""What an evaluation leaves behind: `results.json` in lm-eval's schema, samples, and a report to read."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import idp
from idp.evaluate.arms import SELECTOR_OF, ArmResult, about, each_once
from idp.evaluate.divergence import TOP_K
from idp.evaluate.evaluation import Evaluation
from idp.evaluate.kept import samples_file
from idp.evaluate.task_sets import TaskSet
from idp.evaluate.tasks import EvalTask, columns
from idp.files import atomic_write_text, finite
from idp.report.content import report_of
from idp.report.markdown import to_markdown
from idp.report.notes import notes
from idp.report.run import SCHEMA, Run
from idp.report.tables import divergence_cells
from idp.report.words import arm_title, interval, measure, p_text, percent, points
from idp.stats.pairs import Paired
from idp.stats.resampling import Interval


def write_report(evaluation: Evaluation) -> dict[str, Path]:
    """Write what an evaluation found; samples are there already.

    Returns:
        The paths by kind: ``results`` (JSON), ``report`` (Markdown), ``samples`` (the folder).

    Raises:
        OutputError: a file cannot be written; what was computed stays in ``answers.sqlite``.
    """
    folder = evaluation.settings.output_dir
    results, report = folder / "results.json", folder / "report.md"
    text = json.dumps(to_json(evaluation), indent=2, default=str, ensure_ascii=False) + "\n"
    atomic_write_text(results, text)
    atomic_write_text(report, to_markdown(report_of([Run(folder, json.loads(text))])))
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
    return {**finite(output), "idp": finite(_idp(evaluation))}


def _model_args(evaluation: Evaluation) -> dict[str, Any]:
    """What to give lm-eval's `idp` model for the same results."""
    settings, arm = evaluation.settings, evaluation.main_arm.name
    selector = "none" if arm == "dense" else SELECTOR_OF.get(arm, arm)
    bank = None if selector == "none" else settings.bank or evaluation.bank["name"]
    return {"pretrained": settings.model, "bank": bank, "selector": selector}


def _idp(evaluation: Evaluation) -> dict[str, Any]:
    settings, tasks = evaluation.settings, columns(evaluation.tasks)
    return {
        "schema": SCHEMA,
        "version": idp.__version__,
        "model": evaluation.model,
        "bank": evaluation.bank,
        "seed": settings.seed,
        "settings": {name: value for name, value in vars(settings).items() if name != "output_dir"},
        "metrics": {task.column: task.metric for task in tasks},
        "filters": {task.column: task.filter for task in tasks},
        "in_mean": [task.column for task in tasks if task.in_mean],
        "controls": [task.column for task in tasks if task.control],
        "chance": {task.column: task.chance for task in tasks if task.chance is not None},
        "groups": {task.column: _members(evaluation, task) for task in tasks if task.group},
        "items": evaluation.items,
        "main_arm": evaluation.main_arm.name,
        "arms": {name: _arm(arm, evaluation.means.get(name)) for name, arm in evaluation.arms.items()},
        "gap": None if evaluation.gap is None else _with_interval(evaluation.gap),
        "gap_recovered": {name: _with_interval(gap) for name, gap in evaluation.gaps.items()},
        "paired": [_pair(pair) for pair in evaluation.paired],
        "sets": {found.name: _set(found, evaluation) for found in evaluation.sets},
        "divergence": _divergence(evaluation),
        "detectable_difference": evaluation.detectable,
        "notes": evaluation.notes,
        "failed": evaluation.failed,
        "environment": _environment(),
    }


def _environment() -> dict[str, Any]:
    """What the numbers were computed on and with."""
    libraries = (
        "accelerate",
        "datasets",
        "lm_eval",
        "numpy",
        "scipy",
        "statsmodels",
        "tokenizers",
        "torch",
        "transformers",
    )
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        **{name: version(name) for name in libraries},
    }


def _set(found: TaskSet, evaluation: Evaluation) -> dict[str, Any]:
    """A set of tasks: means, shares of the gap, and the pairs that are also in the headline."""
    pairs = [(pair.a, pair.b) for pair in evaluation.headline]
    return {
        "tasks": found.tasks,
        "means": {name: _with_interval(value) for name, value in found.means.items()},
        "gap": _with_interval(found.gap),
        "gap_recovered": {name: _with_interval(value) for name, value in found.gaps.items()},
        "gap_left_to_repaired_dense": {name: _with_interval(value) for name, value in found.left.items()},
        "paired": [_pair(pair) for pair in found.compared(pairs)],
    }


def _divergence(evaluation: Evaluation) -> dict[str, Any] | None:
    """Divergence from the dense model, in nats a token; None where it was not measured."""
    found = evaluation.divergence
    if found is None:
        return None
    return {
        "top_k": TOP_K,
        "rows": {task: len(values) for task, values in found.arms["compressed"].items()},
        "nats": {name: _negated(value) for name, value in found.means.items()},
        "given_back": {name: _with_interval(value) for name, value in found.gaps.items()},
        "tasks": {
            name: {task: -float(values.mean()) for task, values in rows.items()} for name, rows in found.arms.items()
        },
    }


def _negated(value: Interval) -> dict[str, Any]:
    return {"value": -value.value, "ci95": [-value.high, -value.low]}


def _with_interval(value: Interval) -> dict[str, Any]:
    return {"value": value.value, "ci95": [value.low, value.high]}


def _pair(pair: Paired) -> dict[str, Any]:
    found = asdict(pair)
    found["difference"], found["ci95"] = pair.difference.value, [pair.difference.low, pair.difference.high]
    return found


def _arm(arm: ArmResult, mean: Interval | None) -> dict[str, Any]:
    return {
        "mean": arm.mean,
        "ci95": None if mean is None else [mean.low, mean.high],
        "about": about(arm.name),
        "tasks": arm.values,
        "prompt_tokens": arm.prompt_tokens,
        "seconds": arm.seconds,
        "prompts_chosen": _chosen(arm),
        "samples": {task: samples_file(arm.name, task) for task in arm.samples},  # others may lie beside them
    }


def _chosen(arm: ArmResult) -> dict[str, int]:
    """How often each prompt was chosen."""
    counts: dict[str, int] = {}
    for rows in arm.samples.values():
        for row in each_once(rows):
            name = row["idp_prompt"] or "none"
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the main table."""
    tasks = columns(evaluation.tasks)
    names = [task.column.removeprefix("atlas_") + ("" if task.in_mean else " *") for task in tasks]
    divergence = _divergence(evaluation)
    shares = ["gap recovered [95 %]", *(["KL", "KL given back [95 %]"] if divergence else [])]
    headers = ["arm", "mean", *shares, *names, "prompt tokens", "seconds"]
    rows = []
    for name, arm in evaluation.arms.items():
        values = [measure(arm.values[task.column], task.higher_is_better) for task in tasks]
        share = [percent(arm.mean, 2), interval(evaluation.gaps.get(name))]
        share += divergence_cells(divergence, name) if divergence else []
        rows.append([arm_title(name), *share, *values, f"{arm.prompt_tokens:.1f}", f"{arm.seconds:.1f}"])
    return headers, rows


def footnotes(evaluation: Evaluation) -> list[str]:
    """What a reader of the table must know."""
    return notes(run_of(evaluation))


def run_of(evaluation: Evaluation) -> Run:
    """An evaluation as its folder will tell it."""
    return Run(evaluation.settings.output_dir, to_json(evaluation))


def _members(evaluation: Evaluation, entry: EvalTask) -> list[str]:
    """The tasks that count as one with a task."""
    return [task.name for task in evaluation.tasks if task.column == entry.column]


def paired_rows(pairs: Sequence[Paired]) -> list[list[str]]:
    """Arm, arm it is compared with, difference and corrected p."""
    return [[pair.a, pair.b, points(pair.difference), p_text(pair.holm)] for pair in pairs]
