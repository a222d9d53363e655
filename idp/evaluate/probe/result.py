"""What probing found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, fisher_exact

from idp.evaluate.probe.layers import Inside
from idp.files import finite
from idp.reference.world import Split
from idp.stats.pairs import holm
from idp.stats.resampling import Array, Interval

if TYPE_CHECKING:
    from idp.evaluate.probe.questions import Asked, Book

__all__ = ["NULL", "Probed", "Regain", "Row", "regains", "rows_of"]

Mask: TypeAlias = npt.NDArray[np.bool_]

NULL = (
    "The null hypothesis: of the questions that compression lost, an arm has as large a share right again on "
    "evaluation facts as on facts that the model never saw, where only luck can regain anything (Fisher's exact test, "
    "two-sided, corrected for the number of arms)."
)


@dataclass(frozen=True)
class Row:
    """How every arm answered some questions.

    Attributes:
        book: whether the answer could be read.
        facts: the set of facts, or the part of it.
        questions: how many.
        accuracy: of every arm.
    """

    book: Book
    facts: str
    questions: int
    accuracy: Mapping[str, float]


@dataclass(frozen=True)
class Regain:
    """What an arm gave back of the questions, closed book, that compression lost.

    Attributes:
        arm: its name.
        lost: number of questions that the dense model has right and the compressed one wrong, in each set of facts.
        regained: how many of them the arm has right.
        shares: share of them with a 95 % interval (Wilson).
        p: of the null hypothesis (`NULL`), corrected for the number of arms (Holm).
    """

    arm: str
    lost: Mapping[Split, int]
    regained: Mapping[Split, int]
    shares: Mapping[Split, Interval]
    p: float


@dataclass(frozen=True)
class Probed:
    """All that probing found.

    Attributes:
        model: the compressed model.
        dense: the dense one.
        arms: names, in the order of the tables.
        sets: accuracy by set of facts, closed and open book.
        frequencies: accuracy, closed book, by how often the training text told the facts of both seen sets.
        regains: what every arm gave back.
        inside: what prompts do inside the model, by arm.
        notes: what a reader should know.
    """

    model: str
    dense: str
    arms: Sequence[str]
    sets: Sequence[Row]
    frequencies: Sequence[Row]
    regains: Sequence[Regain]
    inside: Mapping[str, Inside]
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        known: dict[str, Any] = finite({**asdict(self), "null_hypothesis": NULL})
        return known


def rows_of(asked: Sequence[Asked], right: Mapping[str, Array], parts: Mapping[str, Mask], book: Book) -> Iterator[Row]:
    """Accuracy of every arm on parts of the questions.

    Args:
        asked: the questions.
        right: arm -> which are answered rightly, `(n,)`.
        parts: name -> which belong to the part, `(n,)` of booleans.
        book: which of both ways of asking is meant.
    """
    here = np.array([each.book == book for each in asked])
    for name, part in parts.items():
        if (chosen := here & part).any():
            yield Row(book, name, int(chosen.sum()), {arm: float(found[chosen].mean()) for arm, found in right.items()})


def regains(asked: Sequence[Asked], right: Mapping[str, Array]) -> list[Regain]:
    """What every arm but the dense and the compressed model gave back, and whether luck could have done it."""
    lost = np.array([each.book == "closed" for each in asked]) & (right["dense"] > right["compressed"])
    arms = [arm for arm in right if arm not in ("dense", "compressed")]
    found = [_regain(arm, asked, lost, right[arm]) for arm in arms]
    return [replace(each, p=p) for each, p in zip(found, holm([each.p for each in found]), strict=True)]


def _regain(arm: str, asked: Sequence[Asked], lost: Mask, right: Array) -> Regain:
    splits = np.array([each.split for each in asked])
    counts: dict[Split, tuple[int, int]] = {}
    for split in ("tuning", "evaluation", "unseen"):
        chosen = lost & (splits == split)
        counts[split] = (int(right[chosen].sum()), int(chosen.sum()))
    table = [[back, whole - back] for back, whole in (counts["evaluation"], counts["unseen"])]
    return Regain(
        arm,
        lost={split: whole for split, (_, whole) in counts.items()},
        regained={split: back for split, (back, _) in counts.items()},
        shares={split: _share(*count) for split, count in counts.items()},
        p=float(fisher_exact(table).pvalue),
    )


def _share(part: int, whole: int) -> Interval:
    if not whole:
        return Interval(float("nan"), float("nan"), float("nan"))
    interval = binomtest(part, whole).proportion_ci(method="wilson")
    return Interval(part / whole, float(interval.low), float(interval.high))
