"""What prompts are tuned for: the terms of a loss, and how a sum of them is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from idp.errors import TaskError, suggest

__all__ = ["TAUGHT", "TERMS", "Reading", "parse_terms", "require_teacher", "weigh", "written"]


@dataclass(frozen=True, eq=False)
class Reading:
    """What a pass over `B` rows of up to `O` options found.

    Attributes:
        likelihoods: `log P(option | prompt, context)`, `(B, O)`; -inf where a row has fewer options.
        right: that of the right option, `(B,)`.
        single: whether a row has one option only, so that there is nothing to choose, `(B,)`.
        tokens: what the log-likelihood of a running text is divided by for a mean per token; 1 elsewhere, `(B,)`.
        scale: what log-likelihoods and divergences of a row are multiplied by, `(B,)`: see `Objective`.
        teacher: the teacher's log-likelihoods, `(B, O)`; None where no term asks for them.
        divergences: divergence from the teacher, summed over the tokens of each option, `(B, O)`; None likewise.
    """

    likelihoods: Tensor
    right: Tensor
    single: Tensor
    tokens: Tensor
    scale: Tensor
    teacher: Tensor | None = None
    divergences: Tensor | None = None


def _answer(read: Reading) -> Tensor:
    return -read.right * read.scale


def _choice(read: Reading) -> Tensor:
    return read.likelihoods.logsumexp(1) - read.right


def _error(read: Reading) -> Tensor:
    nats = torch.where(read.single, -read.right / read.tokens, _choice(read))
    return 1 - (-nats).exp()


def _distill(read: Reading) -> Tensor:
    teacher, divergences = _taught(read)
    return (teacher.softmax(1) * divergences).sum(1) * read.scale


def _distill_choice(read: Reading) -> Tensor:
    teacher, _ = _taught(read)
    gaps = teacher.log_softmax(1) - read.likelihoods.log_softmax(1)  # (B, O), NaN where there is no option
    return torch.where(teacher.isfinite(), teacher.softmax(1) * gaps, 0.0).sum(1)


def _taught(read: Reading) -> tuple[Tensor, Tensor]:
    assert read.teacher is not None and read.divergences is not None  # noqa: S101  (Objective has seen to it)
    return read.teacher, read.divergences


TERMS: dict[str, Callable[[Reading], Tensor]] = {
    "answer": _answer,
    "choice": _choice,
    "distill": _distill,
    "distill-choice": _distill_choice,
    "error": _error,
    "next-token": _answer,  # of rows that are read as running text
}
"""With `l_j` the log-likelihoods of the options, `a` the right one, `t_j` the teacher's and `D_j` the divergence of the
teacher's next-token distributions from ours, summed over the tokens of option `j`:

    answer          -l_a
    choice          -log softmax(l)_a
    error           1 - softmax(l)_a, or 1 - exp(l_a) where there is one option
    next-token      -l_a of the whole row: every token but the first is predicted
    distill         sum_j softmax(t)_j D_j, what the teacher would say weighing most
    distill-choice  KL(softmax(t) | softmax(l))
"""

TAUGHT = frozenset({"distill", "distill-choice"})
"""Terms that need a teacher."""

_AMONG_OPTIONS = frozenset({"choice", "distill-choice"})


def parse_terms(text: str) -> dict[str, float]:
    """Read a sum of weighted terms.

    Args:
        text: names of `TERMS` joined by `+`, each with an optional weight and `*` before it.

    Returns:
        The weight of each term.

    Raises:
        TaskError: an unknown term, one that occurs twice, a weight that is not a positive number, or `next-token`
            beside terms that look at options.

    Example:
        >>> parse_terms("answer+0.5*choice")
        {'answer': 1.0, 'choice': 0.5}
    """
    terms: dict[str, float] = {}
    for piece in text.split("+"):
        factor, _, name = (part.strip() for part in piece.rpartition("*"))
        if name not in TERMS:
            raise TaskError(f"unknown objective {name!r} in {text!r}. {suggest(name, TERMS)}")
        if name in terms:
            raise TaskError(f"{name!r} occurs twice in the objective {text!r}.")
        terms[name] = _weight(factor, text)
    if "next-token" in terms and len(terms.keys() - {"next-token", "distill"}) > 0:
        raise TaskError(f"next-token reads questions as running text, without options: {text!r} cannot be computed.")
    return terms


def require_teacher(terms: Mapping[str, float], there_is_one: bool) -> None:
    """Check that terms can be computed.

    Raises:
        TaskError: one of them needs a teacher, and there is none.
    """
    if not there_is_one and (taught := sorted(terms.keys() & TAUGHT)):
        raise TaskError(f"the objective {taught[0]!r} needs the dense model as teacher; name it (--teacher).")


def _weight(factor: str, text: str) -> float:
    try:
        weight = float(factor or 1)
    except ValueError:
        weight = math.nan
    if not (weight > 0 and math.isfinite(weight)):
        raise TaskError(f"{factor!r} in the objective {text!r} is not a weight above 0.")
    return weight


def written(terms: Mapping[str, float]) -> str:
    """Write terms as `parse_terms` reads them.

    Example:
        >>> written({"answer": 1.0, "choice": 0.5})
        'answer+0.5*choice'
    """
    return "+".join(name if weight == 1 else f"{weight:g}*{name}" for name, weight in terms.items())


def weigh(terms: Mapping[str, float], read: Reading) -> Tensor:
    """Add the terms up: the loss of each row, `(B,)`.

    Terms about a choice have nothing to say where there is one option; a row for which nothing is left counts its
    answer.
    """
    alone = {name: weight for name, weight in terms.items() if name not in _AMONG_OPTIONS}
    alone = alone or {"answer": sum(terms.values())}
    chosen, given = (_sum(each, read) for each in (terms, alone))
    return torch.where(read.single, given, chosen)


def _sum(terms: Mapping[str, float], read: Reading) -> Tensor:
    losses = [weight * TERMS[name](read) for name, weight in terms.items()]  # (B,) each
    return torch.stack(losses).sum(0)
