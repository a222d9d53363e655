"""The rows of an evaluation: what each arm is, and running one through lm-eval."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lm_eval import evaluator

from idp.dynamic.mixing import HOW, MIX, Mixture, is_mixture
from idp.errors import TaskError, suggest
from idp.evaluate.contexts import context_of
from idp.evaluate.kept import TaskResult
from idp.evaluate.lm import IdpLM
from idp.evaluate.oracle import item_value
from idp.evaluate.tasks import EvalTask, quiet
from idp.select.base import MOST_SCORES
from idp.select.registry import get_selector, selector_names
from idp.stats.resampling import Array, mean

SELECTOR_OF = {
    "compressed": "none",
    "static": "static",
    "random": "random",
    "attention": "attention",
    "attention-calibrated": "attention:calibrate=center",
    "router": "router",
    "router-state": "router:features=state",
}
"""Arms that are a selector on the compressed model."""

DENSE_ARMS = ("dense", "dense-static")
"""Arms that are run on the dense model."""

ARMS = (*DENSE_ARMS, *SELECTOR_OF, "oracle")
"""All arms that have a name, in the order of the table."""

MIXTURES = tuple(f"{MIX}:how={how}" for how in HOW)
"""Arms that mix several prompts; no evaluation has them unless they are asked for."""

ABOUT = {
    "dense": "the uncompressed model, no prompt",
    "dense-static": "the uncompressed model behind a static prompt tuned in the same way: what tuning alone brings",
    "compressed": "the compressed model, no prompt",
    "static": "the best single prompt on the tuning split",
    "random": "a prompt drawn for each input",
    "attention": "the IDP paper's rule as written",
    "attention-calibrated": "the same, scores centred on each prompt's mean",
    "router": "linear router on the mean input embedding, trained on expected loss",
    "router-state": "the same on the hidden state half-way up, which takes half a pass; the default",
    "oracle": "the best prompt per item in hindsight: a bound, not a method",
}


def about(name: str) -> str:
    """What an arm is, in a line."""
    if is_mixture(name):
        return HOW[Mixture.parse(name).how]
    return ABOUT.get(name, f"selector {name}")


@dataclass(frozen=True)
class ArmResult:
    """One arm's results.

    Attributes:
        name: the arm.
        results: lm-eval's own results, without samples.
        samples: lm-eval's samples of each task, with ``idp_prompt`` and ``idp_scores`` (null for more than 1,000 arms).
        items: judged metric of each item, for the tasks in the mean; the tasks of a group are taken together.
        values: judged metric of every task; of a group the mean over all its items.
        prompt_tokens: mean prompt tokens an input.
        seconds: model and selection time this arm needs by itself.
        divergence: from the dense model, nats a token of each row that was read, by task; empty where not measured.
    """

    name: str
    results: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]] = field(repr=False)
    items: dict[str, Array] = field(repr=False)
    values: dict[str, float]
    prompt_tokens: float
    seconds: float
    divergence: dict[str, Array] = field(default_factory=dict, repr=False)

    @property
    def mean(self) -> float | None:
        """Mean over the accuracy-type tasks, None without any."""
        return mean(self.items) if self.items else None


def check_arms(names: Sequence[str]) -> list[str]:
    """Order arms as in the table, selectors with options and mixtures last.

    Raises:
        TaskError: no arm, or one that is neither known nor a selector (near misses are named).
        SelectorError: an option that the selector or mixture does not have.
    """
    if not names:
        raise TaskError("no arm was named; try --arms compressed,router.")
    for name in names:
        if is_mixture(name):
            Mixture.parse(name)
        elif name not in ARMS and name.split(":")[0] not in selector_names():
            raise TaskError(f"unknown arm {name!r}. {suggest(name, [*ARMS, *MIXTURES, *selector_names()])}")
        elif name not in ARMS:
            get_selector(name)
    order = {name: place for place, name in enumerate(ARMS)}
    return sorted(dict.fromkeys(names), key=lambda name: order.get(name, len(order)))


def run_task(lm: IdpLM, entry: EvalTask, limit: int | None) -> TaskResult:
    """Evaluate one arm on one task."""
    before = lm.seconds
    entry.seed_examples()
    with quiet():
        output = evaluator.evaluate(
            lm,
            {"tasks": {entry.name: entry.task}, "groups": {}, "group_map": {}},
            limit=limit,
            bootstrap_iters=100,
            log_samples=True,
        )
    rows = output.pop("samples")[entry.name]
    judged = [row for row in rows if row["filter"] == entry.filter]
    items = [item_value(entry, row) for row in judged] if entry.in_mean else []
    tokens = float(sum(lm.prompt_of(context_of(row))[1] for row in judged))
    for row in rows:
        _annotate(row, lm)
    value = float(output["results"][entry.name][f"{entry.metric},{entry.filter}"])
    return TaskResult(entry.name, _plain(output), _plain(rows), items, value, tokens, lm.seconds - before)


def arm_result(name: str, tasks: Sequence[EvalTask], found: Sequence[TaskResult]) -> ArmResult:
    """Put what an arm made of its tasks together: one result for each of them, in their order."""
    output: dict[str, Any] = {}
    for each in found:
        for key, value in each.output.items():
            output[key] = {**output.get(key, {}), **value} if isinstance(value, dict) else value
    inputs = sum(len(each_once(each.samples)) for each in found)
    items = _by_column(tasks, [each.items for each in found])
    values = {entry.column: each.value for entry, each in zip(tasks, found, strict=True)}
    values |= {entry.column: float(items[entry.column].mean()) for entry in tasks if entry.group}
    return ArmResult(
        name,
        output,
        samples={each.task: each.samples for each in found},
        items=items,
        values=values,
        prompt_tokens=sum(each.prompt_tokens for each in found) / max(1, inputs),
        seconds=sum(each.seconds for each in found),
        divergence=_by_column(tasks, [each.divergence for each in found]),
    )


def _by_column(tasks: Sequence[EvalTask], numbers: Sequence[Sequence[float]]) -> dict[str, Array]:
    """Put the numbers of the tasks of a group together; tasks without any are left out."""
    columns: dict[str, list[float]] = {}
    for entry, own in zip(tasks, numbers, strict=True):
        if own:
            columns.setdefault(entry.column, []).extend(own)
    return {column: np.array(own, dtype=np.float64) for column, own in columns.items()}


def _plain(value: Any) -> Any:
    """As it is once it was written and read: what JSON cannot express as text."""
    return json.loads(json.dumps(value, default=str))


def each_once(samples: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A sample of every item of a task, where lm-eval lists items once for every filter."""
    return list({row["doc_id"]: row for row in samples}.values())


def _annotate(row: dict[str, Any], lm: IdpLM) -> None:
    """Say in a sample which prompt was chosen and how all scored."""
    context = context_of(row)
    row["idp_prompt"], _ = lm.prompt_of(context)
    scores = lm.selection_of(context).scores
    few = len(scores) <= MOST_SCORES
    row["idp_scores"] = [score if np.isfinite(score) else None for score in scores] if few else None
