"""The best prompt of every input in hindsight: a bound for all selectors, not a way to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from idp.evaluate.lm import IdpLM
from idp.evaluate.tasks import EvalTask
from idp.select.base import Selection, Selector, pick

Table = Mapping[tuple[int, ...], Sequence[float]]


class TableSelector(Selector):
    """Chooses by scores that were written down before, context by context.

    Args:
        table: for each context (token ids) the score of every prompt, "no prompt" last.
        name: what the arm is called.
    """

    name: ClassVar[str] = "table"

    def __init__(self, table: Table) -> None:
        self._table = table

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Look the contexts up; on equal scores the cheapest answer, no prompt, wins."""
        scores = torch.tensor([self._scores(tuple(ids)) for ids in inputs], dtype=torch.float64)  # (N, m + 1)
        no_prompt_wins = scores[:, -1] >= scores.amax(dim=1)
        return [
            Selection(-1, choice.scores[-1], choice.scores) if none else choice
            for choice, none in zip(pick(scores), no_prompt_wins.tolist(), strict=True)
        ]

    def _scores(self, context: tuple[int, ...]) -> Sequence[float]:
        """A context's scores; a later window of a long running text goes with the text as a whole."""
        return self._table.get(context) or self._table[(self.lm.prefix_token_id,)]


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
    key = next(iter(task.instances[0].filtered_resps))
    docs = dict(task.doc_iterator(rank=0, limit=limit, world_size=1))
    return {
        doc_id: item_value(entry, task.process_results(docs[doc_id], [i.filtered_resps[key] for i in instances]))
        for doc_id, instances in by_doc.items()
    }


def item_value(entry: EvalTask, metrics: Mapping[str, Any]) -> float:
    """One item's judged metric as a number, larger is better; of a perplexity the log-likelihood."""
    value = metrics[entry.metric]
    if isinstance(value, tuple | list):
        return float(value[0])
    return float(value) if entry.higher_is_better else -float(value)


def oracle_table(lms: Sequence[IdpLM], tasks: Sequence[EvalTask], limit: int | None) -> Table:
    """Mean score of each context's items under every prompt.

    Args:
        lms: one model a prompt, in the bank's order, and last one without a prompt.
        tasks: the tasks, requests built.
        limit: items a task.
    """
    columns: list[dict[tuple[int, ...], list[float]]] = []
    for lm in lms:
        found: dict[tuple[int, ...], list[float]] = {}
        for entry in tasks:
            contexts = {instance.doc_id: lm.context_ids(instance) for instance in entry.task.instances}
            for doc_id, value in item_scores(lm, entry, limit).items():
                found.setdefault(contexts[doc_id], []).append(value)
        columns.append(found)
    return {context: [sum(column[context]) / len(column[context]) for column in columns] for context in columns[0]}
