"""How far an arm's predictions are from the dense model's: a measure of repair that needs no answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from idp.errors import ModelError
from idp.evaluate.contexts import context_of
from idp.run.guard import broken_numbers
from idp.run.packing import Request, lay_out
from idp.run.passes import Job
from idp.run.readout import readout
from idp.run.score import run_requests
from idp.run.store import PrefixStore
from idp.run.ways import PASSES, Way
from idp.tune.teacher import Lesson, Teacher, teach

if TYPE_CHECKING:
    from idp.evaluate.lm import IdpLM
    from idp.evaluate.tasks import EvalTask
    from idp.model.loaded import LanguageModel

__all__ = ["CONTEXTS", "ROW_TOKENS", "TEXT_ROWS", "TOP_K", "DenseReference"]

CONTEXTS = 24
"""Contexts of a task that are read, evenly spaced among its items."""
TEXT_ROWS = 48
"""Rows of a task of running text that are read."""
ROW_TOKENS = 128
"""Tokens of a row: the last of a context, and those of a window of a running text."""
TOP_K = 64
"""Tokens of each of the dense model's distributions that are kept; all others count as one outcome."""

_WINDOWS = 8  # of a running text, from its beginning

_LOG = logging.getLogger(__name__)


class _Row(NamedTuple):
    """A row of tokens to be predicted, and what its prompt was chosen by."""

    context: str
    request: Request


class DenseReference:
    """What the dense model predicts on contexts and texts of the tasks, and how far others are from it.

    `KL(dense || arm)` of the next token, in nats, over the dense model's `TOP_K` likeliest tokens and all others
    together (never more than over the whole vocabulary), mean over the tokens of a row. The arm reads a row behind the
    prompt that it chose for the item. Of a context every token but the first is predicted and the one that would come
    next; of a running text, which is cut into windows, every token.

    Args:
        folder: where the dense model's predictions are kept; an evaluation that goes on reads them.

    Source: distillation's own measure, arXiv 1503.02531; as a measure of compression, arXiv 2407.09141.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taught: dict[str, Teacher] = {}

    def ask(self, dense: IdpLM, entry: EvalTask, samples: Sequence[dict[str, Any]], compressed: LanguageModel) -> None:
        """Have the dense model predict the rows of a task.

        Where the two models have different tokenizers nothing can be compared, and nothing is measured later.
        """
        requests = [row.request for row in _rows(dense, entry, samples)]
        try:
            self._taught[entry.name] = teach(dense.prompted.lm, compressed, requests, top_k=TOP_K, folder=self._folder)
        except ModelError as error:
            _LOG.warning("divergence from the dense model is not measured: %s", error)

    def measure(self, lm: IdpLM, entry: EvalTask, samples: Sequence[dict[str, Any]]) -> list[float]:
        """Measure an arm on the rows of a task that it was run on.

        Args:
            lm: the arm.
            entry: the task.
            samples: lm-eval's, which tell the items.

        Returns:
            Nats a token of each row; empty where the dense model was not asked, or several prompts are mixed.

        Raises:
            ModelError: the arm's model computed NaN.
        """
        teacher = self._taught.get(entry.name)
        if teacher is None or lm.mixture is not None:
            return []
        rows = _rows(lm, entry, samples)
        choices = [lm.selection_of(row.context).index for row in rows]
        keys = [
            ("divergence", lm.prompt_id(choice), teacher.identity, row.request.context, row.request.continuations)
            for row, choice in zip(rows, choices, strict=True)
        ]
        known = lm.memo.get(keys)
        missing = [place for place, answer in enumerate(known) if answer is None]
        found = _measured(
            lm.prompted.store,
            [rows[place].request for place in missing],
            [choices[place] for place in missing],
            teacher,
        )
        lm.memo.put((keys[place], value, 0.0) for place, value in zip(missing, found, strict=True))
        new = dict(zip(missing, found, strict=True))
        return [new[place] if answer is None else float(answer.value) for place, answer in enumerate(known)]


def _rows(lm: IdpLM, entry: EvalTask, samples: Sequence[dict[str, Any]]) -> list[_Row]:
    """The rows of a task: the same for every arm, since they depend on items and tokenizer alone."""
    contexts = [context_of(row) for row in {row["doc_id"]: row for row in samples}.values()]
    if entry.is_text:
        windows = [_Row(text, request) for text in contexts for request in _windows(lm, text)]
        return _spaced(windows, TEXT_ROWS)
    rows = ((context, lm.tok_encode(context)[-ROW_TOKENS:]) for context in _spaced(contexts, CONTEXTS))
    # The last prediction is of whatever comes next, so any token may stand there.
    return [_Row(context, Request((ids[0],), ((*ids[1:], lm.prefix_token_id),))) for context, ids in rows if ids]


def _windows(lm: IdpLM, text: str) -> list[Request]:
    ids, step = lm.tok_encode(text), ROW_TOKENS - 1
    parts = [tuple(ids[begin : begin + step]) for begin in range(0, min(len(ids), _WINDOWS * step), step)]
    return [Request((lm.prefix_token_id,), (part,)) for part in parts if part]


def _spaced(items: list[Any], count: int) -> list[Any]:
    """At most `count` of a list, evenly spaced."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places]


def _measured(store: PrefixStore, requests: Sequence[Request], choices: Sequence[int], teacher: Teacher) -> list[float]:
    """Mean divergence of each request's tokens, each under its prompt."""
    found: dict[int, float] = {}

    def run(store: PrefixStore, batch: list[Job], way: Way) -> list[float]:
        return _run(store, batch, way, teacher)

    for jobs, values, _ in run_requests(store, requests, choices, run):
        found.update((job.number, value) for job, value in zip(jobs, values, strict=True))
    return [found[number] for number in range(len(requests))]


@torch.no_grad()
def _run(store: PrefixStore, batch: list[Job], way: Way, teacher: Teacher) -> list[float]:
    """One batch: the mean over each row's tokens."""
    requests = [job.request for job in batch]
    layout = lay_out(requests, store.lm.pad_token_id)
    states = PASSES[way](store, batch, layout)  # (P, d)
    lesson = teacher.lesson(requests)
    total = torch.zeros(layout.num_options, dtype=torch.float64)
    for part, logits in readout(store.lm).logits(states):  # (p, V)
        here = ((layout.sources >= part.start) & (layout.sources < part.stop)).nonzero()[:, 0]
        picked = logits[(layout.sources[here] - part.start).to(logits.device)]  # (n, V)
        near = Lesson(lesson.likelihoods, lesson.ids[here], lesson.log_probs[here], lesson.temperature)
        total.index_add_(0, layout.owners[here], near.divergences(picked).double().cpu())
    if torch.isnan(total).any():
        raise broken_numbers(store.lm, "NaN instead of probabilities")
    lengths = list(chain.from_iterable(map(len, request.continuations) for request in requests))
    return [value / length for value, length in zip(total.tolist(), lengths, strict=True)]
