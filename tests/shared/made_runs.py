"""Evaluations made by hand, written as `idp eval` writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from lm_eval.api.metrics import mean

from idp.evaluate.arms import ArmResult
from idp.evaluate.evaluation import Evaluation
from idp.evaluate.kept import samples_file
from idp.evaluate.report import write_report
from idp.evaluate.settings import Settings
from idp.evaluate.tasks import EvalTask

OPTIONS = (" north", " south", " east")
MODEL = {
    "name": "tiny",
    "source": "org/tiny",
    "compression": "GPTQ, 2 bits",
    "dtype": "float32",
    "device": "cpu",
    "fingerprint": {"architecture": "Tiny", "weights": "0123"},
}
BANK = {"name": "tuned", "prompts": ["one", "two"], "tokens": [4, 16], "digest": "abcd", "provenance": {}}


def choice_row(task: str, number: int, right: bool, prompt: str | None) -> dict[str, Any]:
    """A sample of a question with three options, of which the last is right."""
    best = 2 if right else 0
    question = f"Question {number} of {task}: where is the harbour?\nAnswer:"
    return {
        "doc_id": number,
        "doc_hash": f"{task}-{number}",
        "target": 2,
        "filter": "none",
        "arguments": [[question, option] for option in OPTIONS],
        "filtered_resps": [[0.0 if place == best else -3.0 - place, False] for place in range(3)],
        "acc": float(right),
        "idp_prompt": prompt,
        "idp_scores": None,
    }


def text_row(task: str, number: int, loss: float, prompt: str | None) -> dict[str, Any]:
    """A sample of running text: log-likelihood and number of words."""
    return {
        "doc_id": number,
        "doc_hash": f"{task}-{number}",
        "target": "It was a long way.",
        "filter": "none",
        "arguments": [["It was a long way."]],
        "filtered_resps": [-loss],
        "word_perplexity": [-loss, 5],
        "idp_prompt": prompt,
        "idp_scores": None,
    }


def made_run(
    folder: Path,
    right: Mapping[str, Mapping[str, Sequence[int]]],
    *,
    seed: int = 0,
    model: Mapping[str, Any] = MODEL,
    failed: Mapping[str, str] | None = None,
    text: bool = False,
    prompts: Mapping[str, Sequence[str]] | None = None,
    items: str = "",
) -> Path:
    """Write an evaluation.

    Args:
        folder: where to.
        right: arm -> task -> 1 for each item that is right, 0 for others.
        seed: of the run.
        model: what is known of it.
        failed: arms that failed, with the reason.
        text: whether a task of running text is added, which has no part in the mean.
        prompts: the prompt each item of an arm was behind, over and over; none unless given.
        items: added to the hashes of items.
    """
    tasks = [_task(name, "acc", True) for name in next(iter(right.values()))]
    tasks += [_task("text", "word_perplexity", False)] if text else []
    arms = {name: _arm(name, given, text, (prompts or {}).get(name)) for name, given in right.items()}
    folder.mkdir(parents=True)
    evaluation = Evaluation(
        Settings(model="org/tiny", output_dir=folder, seed=seed, arms=tuple(right)),
        dict(model),
        BANK,
        tuple(tasks),
        arms,
        notes=[f"arm {name!r} failed: {why}" for name, why in (failed or {}).items()],
        failed=dict(failed or {}),
        items={task.name: f"hash of {task.name}{items}" for task in tasks},
    )
    for name, arm in arms.items():
        for task, rows in arm.samples.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / samples_file(name, task)).write_text(lines, encoding="utf-8")
    write_report(evaluation)
    return folder


def _task(name: str, metric: str, higher: bool) -> EvalTask:
    task = SimpleNamespace(OUTPUT_TYPE="generate_until", aggregation=lambda: {metric: mean})
    return EvalTask(name, task, metric, higher, control=False)


def _arm(name: str, given: Mapping[str, Sequence[int]], text: bool, prompts: Sequence[str] | None) -> ArmResult:
    behind = prompts or [None]
    samples = {
        task: [choice_row(task, n, bool(value), behind[n % len(behind)]) for n, value in enumerate(values)]
        for task, values in given.items()
    }
    items = {task: np.array(values, dtype=np.float64) for task, values in given.items()}
    values = {task: float(found.mean()) for task, found in items.items()}
    if text:
        samples["text"], values["text"] = [text_row("text", 0, 9.0, behind[0])], 6.0
    output = {
        "results": {task: {} for task in values},
        "higher_is_better": {task: {"word_perplexity": False} if task == "text" else {"acc": True} for task in values},
        "n-samples": {task: {"original": len(rows), "effective": len(rows)} for task, rows in samples.items()},
    }
    return ArmResult(name, output, samples, items, values, prompt_tokens=0.0 if prompts is None else 16.0, seconds=1.5)
