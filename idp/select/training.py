"""Training a router's map: where it starts, how hard it is held there, and when it had better choose no prompt."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from idp.select.linear import OBJECTIVES, Linear, fit_beliefs, fit_costs, fit_labels

__all__ = ["ALWAYS", "Lesson", "Trained", "Training", "with_margin"]

_LOG = logging.getLogger(__name__)

ALWAYS = 1e9
"""What is added to the logit of "no prompt" where it is always chosen; an infinite one would make NaN of the rest."""

_L2_GRID = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0, 10.0)
_FEWEST = 20
_SHARPNESS = 3.0
"""Beliefs of a teacher are sharpened: it was trained to choose, not to say how sure it is."""
_MARGINS = 20


@dataclass(frozen=True)
class Lesson:
    """What a router is trained on.

    Attributes:
        features: `(N, f)`.
        losses: `(N, m + 1)`, in units of their spread.
        folds: `(N,)`, the part that each input belongs to; choices are judged on parts they were not fitted on.
        hints: `(N,)`, the arm that was tuned for inputs like this one, where that is known.
        teacher: other features `(N, e)`, which a teacher learns from first.
    """

    features: Tensor
    losses: Tensor
    folds: Tensor
    hints: Tensor | None = None
    teacher: Tensor | None = None

    def without(self, fold: int) -> Lesson:
        """All but one part."""
        rows = self.folds != fold
        return Lesson(*(None if values is None else values[rows] for values in vars(self).values()))  # type: ignore[arg-type]

    def of_teacher(self) -> Lesson:
        """What the teacher is trained on."""
        assert self.teacher is not None  # noqa: S101  (who calls this has one)
        return Lesson(self.teacher, self.losses, self.folds, self.hints)

    @property
    def parts(self) -> list[int]:
        """The parts; none where there are too few inputs to judge anything by."""
        found = sorted(set(self.folds.tolist()))
        return found if len(self.losses) >= _FEWEST and len(found) > 1 else []


class Trained(NamedTuple):
    """A map, and what held-out inputs say of it.

    Attributes:
        map: trained on everything.
        l2: the penalty.
        margin: what "no prompt" is given more for choosing well on held-out inputs; 0 as a rule.
    """

    map: Linear
    l2: float
    margin: float


Start: TypeAlias = Callable[[Lesson], Linear]
"""Makes the map to start from, and to be held to, out of a part of a lesson."""


class _Plan(NamedTuple):
    """Where to start, and how hard to be held there."""

    start: Start
    l2: float


@dataclass(frozen=True)
class Training:
    """How a router's map is trained.

    Attributes:
        objective: one of `OBJECTIVES`.
        hidden: width of the hidden layer, 0 for none.
        l2: weight of the penalty; None chooses it.
        seed: of the hidden layer.
        abstain: whether "no prompt" may be given more than the training gave it.
    """

    objective: str = "expected"
    hidden: int = 0
    l2: float | None = None
    seed: int = 0
    abstain: bool = True

    def run(self, lesson: Lesson) -> Trained:
        """Train on all of a lesson, from the start, with the penalty and the margin that are best when held out."""
        plan, logits = self._plan(lesson)
        margin = _margin(logits, lesson.losses) if logits is not None and self.abstain else 0.0
        return Trained(self._fit(lesson, plan), plan.l2, margin)

    def _plan(self, lesson: Lesson) -> tuple[_Plan, Tensor | None]:
        """Choose where to start: the first start that loses no more than the best one, and for each its penalty.

        With the logits of every input by maps that did not see it, `(N, m + 1)`, where there are enough to tell.
        """
        plans = [_Plan(start, self._l2_from(lesson, start)) for start in self._starts(lesson)]
        if not lesson.parts or (len(plans) == 1 and not self.abstain):
            return plans[0], None
        judged = [self._judged(lesson, plan) for plan in plans]
        good = _as_good(torch.stack([_costs(logits, lesson.losses) for logits in judged]))
        return plans[good.index(True)], judged[good.index(True)]

    def _starts(self, lesson: Lesson) -> list[Start]:
        """Where the descent may start: from hints, else from what a teacher believes or from nothing."""
        if lesson.hints is not None:
            return [lambda part: fit_labels(part.features, _known(part.hints), part.losses.shape[1])]
        starts: list[Start] = [lambda part: Linear.zero(part.features, part.losses.shape[1])]
        if lesson.teacher is not None:
            plain = Training(seed=self.seed, abstain=False)
            taught_by, _ = plain._plan(lesson.of_teacher())
            starts.insert(0, lambda part: plain._taught(part, taught_by))
        return starts

    def _taught(self, lesson: Lesson, plan: _Plan) -> Linear:
        """What a teacher believes, as far as the features can tell."""
        taught = lesson.of_teacher()
        logits = self._fit(taught, plan).logits(taught.features)  # (N, m + 1)
        return fit_beliefs(lesson.features, (_SHARPNESS * logits).softmax(dim=-1))

    def _l2_from(self, lesson: Lesson, start: Start) -> float:
        """Choose the strongest penalty whose hard choices lose, on the first part, no more than the best one's.

        Up to one standard error of the paired difference (Breiman et al. 1984, section 3.4.3): noise is no reason to
        leave the start.
        """
        if self.l2 is not None:
            return self.l2
        if not lesson.parts:
            return _L2_GRID[-1]
        fold = lesson.parts[0]
        inside, outside = lesson.without(fold), lesson.folds == fold
        begin = start(inside)
        logits = [self._fit(inside, _Plan(lambda _: begin, l2)).logits(lesson.features[outside]) for l2 in _L2_GRID]
        costs = torch.stack([_costs(one, lesson.losses[outside]) for one in logits])  # (grid, n)
        _LOG.debug("held-out loss by l2: %s", dict(zip(_L2_GRID, costs.mean(dim=1).tolist(), strict=True)))
        return max(l2 for l2, good in zip(_L2_GRID, _as_good(costs), strict=True) if good)

    def _judged(self, lesson: Lesson, plan: _Plan) -> Tensor:
        """Logits of every input by a map that was fitted on the other parts, `(N, m + 1)`."""
        logits = torch.empty_like(lesson.losses)
        for fold in lesson.parts:
            rows = lesson.folds == fold
            logits[rows] = self._fit(lesson.without(fold), plan).logits(lesson.features[rows])
        return logits

    def _fit(self, lesson: Lesson, plan: _Plan) -> Linear:
        start = plan.start(lesson).widened(self.hidden, self.seed)
        return fit_costs(start, lesson.features, lesson.losses, plan.l2, OBJECTIVES[self.objective])


def _known(hints: Tensor | None) -> Tensor:
    assert hints is not None  # noqa: S101  (a part has what the whole has)
    return hints


def with_margin(logits: Tensor, margin: float) -> Tensor:
    """Give "no prompt", the last column, so much more."""
    return torch.cat([logits[:, :-1], logits[:, -1:] + margin], dim=1)


def _margin(logits: Tensor, losses: Tensor) -> float:
    """Return the smallest margin of "no prompt" whose choices lose no more than the best one's, as for `l2`.

    Choosing no prompt at all is among them: so a router is never worse than that by more than a standard error.
    """
    lead = logits[:, :-1].amax(dim=1) - logits[:, -1]  # (N,)
    steps = torch.linspace(0, 1, _MARGINS, dtype=lead.dtype)
    margins: list[float] = [0.0, *lead.clamp_min(0.0).quantile(steps).tolist(), ALWAYS]
    costs = torch.stack([_costs(with_margin(logits, margin), losses) for margin in margins])  # (margins, N)
    return min(margin for margin, good in zip(margins, _as_good(costs), strict=True) if good)


def _costs(logits: Tensor, losses: Tensor) -> Tensor:
    """What the choices cost, `(N,)`."""
    return losses.gather(1, logits.argmax(dim=1, keepdim=True))[:, 0]


def _as_good(costs: Tensor) -> list[bool]:
    """Which rows of `(ways, n)` cost no more than the cheapest, up to one standard error of the paired difference."""
    excess = costs - costs[costs.mean(dim=1).argmin()]  # (ways, n)
    error = excess.std(dim=1, correction=0) / math.sqrt(excess.shape[1])  # (ways,)
    good: list[bool] = (excess.mean(dim=1) <= error).tolist()
    return good
