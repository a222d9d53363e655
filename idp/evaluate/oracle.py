"""What every prompt makes of every item of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from idp.evaluate.contexts import seen_contexts
from idp.evaluate.lm import IdpLM, PairRequest
from idp.evaluate.tasks import EvalTask
from idp.report.run import judged
from idp.run.score import Score
from idp.select.base import Selection, Selector
from idp.select.calibration import Calibration
from idp.stats.resampling import Array
from idp.tune.examples import Example
from idp.tune.losses import loss_of


class FixedSelector(Selector):
    """Always the same prompt.

    Args:
        index: its place in the bank, -1 for none.
    """

    name: ClassVar[str] = "fixed"

    def __init__(self, index: int) -> None:
        self._index = index

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose it for every input."""
        scores = [0.0] * (len(self.bank) + 1)
        scores[self._index] = 1.0
        return [Selection(self._index, 1.0, tuple(scores)) for _ in inputs]


def item_scores(lm: IdpLM, entry: EvalTask, limit: int | None) -> dict[int, float]:
    """The judged metric of every item, larger is better, under the model's selector.

    The task's requests must have been built, as an evaluation of any arm does.
    """
    task = entry.task
    kind = "loglikelihood" if task.OUTPUT_TYPE == "multiple_choice" else task.OUTPUT_TYPE
    for instance, response in zip(task.instances, getattr(lm, kind)(task.instances), strict=True):
        instance.resps, instance.filtered_resps = [response], {}
    task.apply_filters()
    by_doc: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_doc.setdefault(instance.doc_id, []).append(instance)
    docs = dict(task.doc_iterator(rank=0, limit=limit, world_size=1))
    return {
        doc_id: item_value(
            entry, task.process_results(docs[doc_id], [i.filtered_resps[entry.filter] for i in instances])
        )
        for doc_id, instances in by_doc.items()
    }


def item_value(entry: EvalTask, metrics: Mapping[str, Any]) -> float:
    """One item's judged metric as a number, larger is better (`idp.report.run.judged`)."""
    return judged(metrics[entry.metric], entry.higher_is_better)


def item_losses(lm: IdpLM, examples: Sequence[Example]) -> Array:
    """The loss of every item of one task under the model's selector, `(N,)`.

    The items of one task at a time: the answers to a question of another task are no options of this one's. Likelihoods
    that an evaluation of the task needs as well are asked for once, and kept.
    """
    asked: list[PairRequest] = [
        ((str(example.context), ""), [*example.context], [*option])
        for example in examples
        for option in example.continuations
    ]
    found = iter(lm._loglikelihood_tokens(asked))
    return np.array([loss_of(one, [Score(*next(found)) for _ in one.continuations]) for one in examples])


def outcomes(
    lms: Sequence[IdpLM], tasks: Sequence[EvalTask], limit_of: Callable[[EvalTask], int | None]
) -> Calibration:
    """What every prompt makes of every item: the contexts in order, and minus the judged metric as losses.

    Args:
        lms: one model a prompt, in the bank's order, and last one without a prompt.
        tasks: the tasks, requests built.
        limit_of: tells how many items of a task are asked.
    """
    inputs: list[tuple[int, ...]] = []
    groups: list[str] = []
    columns: list[list[float]] = [[] for _ in lms]
    for entry in tasks:
        instances = entry.task.instances
        contexts = {
            instance.doc_id: lms[0].context_ids(instance, seen)
            for instance, seen in zip(instances, seen_contexts(instances), strict=True)
        }
        inputs += contexts.values()
        groups += [entry.name] * len(contexts)
        for column, lm in zip(columns, lms, strict=True):
            scores = item_scores(lm, entry, limit_of(entry))
            column += [scores[doc_id] for doc_id in contexts]
    return Calibration(inputs, -torch.tensor(columns, dtype=torch.float64).T, groups)
