"""What compression did to the weights: `‖W − Ŵ‖_F / ‖W‖_F` of every matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from idp.evaluate.damage.matrices import Matrix, kinds_of, matrices
from idp.evaluate.damage.pair import layer_pairs
from idp.model.fingerprint import settle

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["MatrixError", "Uncompared", "combined", "relative", "weight_errors"]


@dataclass(frozen=True)
class MatrixError:
    """How far a matrix is from the dense model's.

    Attributes:
        layer: number of its layer.
        name: its name in the layer.
        kind: its name without what it shares with the others, and without numbers.
        distance: `‖W − Ŵ‖_F`.
        norm: `‖W‖_F`.
    """

    layer: int
    name: str
    kind: str
    distance: float
    norm: float

    @property
    def error(self) -> float:
        """`‖W − Ŵ‖_F / ‖W‖_F`."""
        return relative(self.distance, self.norm)


@dataclass(frozen=True)
class Uncompared:
    """A matrix that has no counterpart, and why."""

    layer: int
    name: str
    reason: str


def relative(distance: float, norm: float) -> float:
    """`distance / norm`; infinite where something was made of nothing."""
    if norm == 0:
        return 0.0 if distance == 0 else math.inf
    return distance / norm


def combined(errors: Iterable[MatrixError]) -> float:
    """The relative error of several matrices taken as one: `√(Σ‖W − Ŵ‖²) / √(Σ‖W‖²)`.

    Example:
        >>> combined([MatrixError(0, "a", "a", 3.0, 6.0), MatrixError(0, "b", "b", 4.0, 8.0)])
        0.5
    """
    kept = list(errors)
    return relative(math.hypot(*(each.distance for each in kept)), math.hypot(*(each.norm for each in kept)))


def weight_errors(
    dense: LanguageModel, compressed: LanguageModel, advance: Callable[[int], None] = lambda count: None
) -> tuple[list[MatrixError], list[Uncompared]]:
    """Compare every matrix of every decoder layer with the one of the same name in the other model.

    Args:
        dense: the model before compression.
        compressed: an alike model (`require_alike`).
        advance: called with the number of layers just finished.

    Returns:
        The errors, layer by layer, and the matrices that could not be compared.

    Raises:
        ModelError: the architecture has no list of decoder layers.

    Example:
        >>> errors, uncompared = weight_errors(dense, compressed)  # doctest: +SKIP
        >>> errors[0].name, round(errors[0].error, 2), uncompared  # doctest: +SKIP
        ('self_attn.q_proj', 0.41, [])
    """
    errors: list[MatrixError] = []
    uncompared: list[Uncompared] = []
    for lm in (dense, compressed):
        settle(lm.model)  # some modules have no weights before
    for layer, (ours, theirs) in enumerate(layer_pairs(dense, compressed)):
        left, right = matrices(ours), matrices(theirs)
        kinds = kinds_of(list(left))
        for name in [*left, *(name for name in right if name not in left)]:
            reason = _why_not(left.get(name), right.get(name))
            if reason:
                uncompared.append(Uncompared(layer, name, reason))
                continue
            errors.append(MatrixError(layer, name, kinds[name], *_distance(left[name], dense, right[name], compressed)))
        advance(1)
    return errors, uncompared


def _why_not(ours: Matrix | None, theirs: Matrix | None) -> str:
    """Why two matrices cannot be compared; empty where they can."""
    if ours is None or theirs is None:
        return f"only in the {'compressed' if ours is None else 'dense'} model"
    if ours.shape != theirs.shape:
        return f"{_times(ours.shape)} in the dense model, {_times(theirs.shape)} in the compressed one"
    return ""


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


@torch.no_grad()
def _distance(ours: Matrix, dense: LanguageModel, theirs: Matrix, compressed: LanguageModel) -> tuple[float, float]:
    """`‖W − Ŵ‖_F` and `‖W‖_F`, read side by side and a piece at a time."""
    difference = norm = 0.0
    pieces = (matrix.pieces(lm.device, lm.dtype) for matrix, lm in ((ours, dense), (theirs, compressed)))
    for left, right in zip(*pieces, strict=True):
        norm += float(left.double().square().sum())
        difference += float((left - right.to(left.device)).double().square().sum())
    return math.sqrt(difference), math.sqrt(norm)
