"""What compression did to knowledge: the same questions put to both models, told apart by what they ask."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from idp.errors import TaskError
from idp.run.score import Scored, score
from idp.run.store import PrefixStore
from idp.stats.pairs import compare
from idp.stats.resampling import Array, Interval, bootstrap_means
from idp.tune.examples import Example
from idp.tune.questions import Question, encoded

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Accuracy", "Probe", "ask", "file_probes", "is_right", "usable"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probe:
    """A question, and what it asks: the widest label first."""

    labels: tuple[str, ...]
    example: Example


@dataclass(frozen=True)
class Accuracy:
    """How both models answered the questions that share some labels.

    Attributes:
        labels: what they share.
        questions: how many they are.
        dense: share that the dense model answered rightly.
        compressed: that of the compressed model.
        difference: compressed minus dense, with its paired 95 % bootstrap interval.
        p: of no difference, by a two-sided sign-flip permutation test; not corrected for the number of rows.
    """

    labels: tuple[str, ...]
    questions: int
    dense: float
    compressed: float
    difference: Interval
    p: float


def file_probes(lm: LanguageModel, questions: Sequence[Question]) -> list[Probe]:
    """Make probes of a user's questions, labelled by group and, where it is given, kind.

    Raises:
        TaskError: a question has no answer, or there is none that can be used.
    """
    if unknown := sum(question.answer is None for question in questions):
        raise TaskError(f"{unknown} of {len(questions)} questions have no answer; give the right one of each.")
    found = [(question, encoded(lm, question)) for question in questions]
    made = [Probe((q.group, q.kind) if q.kind else (q.group,), example) for q, example in found if example]
    if len(made) < len(questions):
        _LOG.warning("%d questions have an option without tokens and are left out", len(questions) - len(made))
    return usable(lm, made)


def usable(lm: LanguageModel, probes: Sequence[Probe]) -> list[Probe]:
    """Leave out what does not fit into the model's context.

    Raises:
        TaskError: nothing is left.
    """
    kept = [probe for probe in probes if probe.example.request.span <= lm.max_length]
    if not kept:
        raise TaskError(
            f"none of {len(probes)} questions can be put to {lm.name}: they are too long or have no tokens."
        )
    if len(kept) < len(probes):
        _LOG.warning("%d questions are too long for %s and left out", len(probes) - len(kept), lm.name)
    return kept


def ask(
    dense: LanguageModel,
    compressed: LanguageModel,
    probes: Sequence[Probe],
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Accuracy]:
    """Put the same questions to two models.

    Args:
        dense: the model before compression.
        compressed: an alike model, which has the same tokens.
        probes: the questions.
        seed: of the bootstrap and the permutation test.
        advance: called with the number of questions one of the models has just answered.

    Returns:
        A row for all labels that questions share, the wider before the narrower.

    Raises:
        ModelError: a model computed NaN, or a single question does not fit into memory.

    Example:
        >>> ask(dense, compressed, world_probes(dense))[0].compressed  # doctest: +SKIP
        0.61
    """
    right = {name: _right(lm, probes, advance) for name, lm in (("dense", dense), ("compressed", compressed))}
    labels = dict.fromkeys(probe.labels[:depth] for probe in probes for depth in range(1, len(probe.labels) + 1))
    return [_accuracy(shared, probes, right, seed) for shared in labels]


def _right(lm: LanguageModel, probes: Sequence[Probe], advance: Callable[[int], None]) -> Array:
    """Which questions a model answers rightly, `(n,)` of 0 and 1."""
    requests = [probe.example.request for probe in probes]
    scored = score(PrefixStore(lm, None), requests, [-1] * len(probes), advance=advance)
    return np.array(
        [is_right(probe.example, answer) for probe, answer in zip(probes, scored, strict=True)], dtype=float
    )


def is_right(example: Example, scored: Scored) -> bool:
    """Whether the right option is the likeliest; a single answer has to be what the model would say."""
    if len(scored.scores) == 1:
        return scored.scores[0].is_greedy
    likelihoods = [option.loglikelihood for option in scored.scores]
    return likelihoods.index(max(likelihoods)) == example.answer


def _accuracy(labels: tuple[str, ...], probes: Sequence[Probe], right: dict[str, Array], seed: int) -> Accuracy:
    here = np.array([probe.labels[: len(labels)] == labels for probe in probes])  # (n,)
    arms = {name: {"all": values[here]} for name, values in right.items()}
    pair = compare("compressed", "dense", arms, bootstrap_means(arms, seed), seed)
    dense, compressed = (float(arms[name]["all"].mean()) for name in ("dense", "compressed"))
    return Accuracy(labels, int(here.sum()), dense, compressed, pair.difference, pair.p)
