"""Whether an input is like those that a selector was fitted on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Typical"]

_AXES = 256
_FEWEST = 100
"""Inputs without which nothing can be said of what is usual."""


@dataclass(frozen=True)
class Typical:
    """The inputs of a calibration as a normal distribution along a few axes and one spread for all others.

    Attributes:
        axes: orthonormal rows, `(r, f)`.
        spread: variance along each, `(r,)`.
        rest: mean variance along all others, `()`.
        reach: squared distance of the farthest input that was not learned from, `()`.

    Source: probabilistic principal components, Tipping and Bishop 1999; the distance to tell strange inputs by, arXiv
    1807.03888 section 2.1.

    Example:
        >>> seen = torch.randn(500, 8, dtype=torch.float64)
        >>> Typical.of(seen, torch.arange(500) % 5).strange(torch.full((1, 8), 9.0, dtype=torch.float64))
        tensor([True])
    """

    axes: Tensor
    spread: Tensor
    rest: Tensor
    reach: Tensor

    @classmethod
    def of(cls, standard: Tensor, folds: Tensor) -> Typical | None:
        """Learn what is usual from standardised features `(N, f)`; None from too few.

        Args:
            standard: the features.
            folds: `(N,)`, the part of each input: how far usual inputs reach is measured on those not learned from.
        """
        numbers = set(folds.tolist())
        if len(standard) < _FEWEST or len(numbers) < 2:
            return None
        parts = [(standard[folds != number], standard[folds == number]) for number in numbers]
        reach = torch.stack([cls._along(inside).distances(outside).amax() for inside, outside in parts]).amax()
        return replace(cls._along(standard), reach=reach)

    @classmethod
    def _along(cls, standard: Tensor) -> Typical:
        values, vectors = torch.linalg.eigh(standard.T @ standard / len(standard))  # ascending
        count = min(_AXES, len(values) - 1)
        # Where inputs do not vary at all, nothing may divide by zero.
        spread = values.flip(0)[:count].clamp_min(1e-6)  # (r,)
        rest = values.flip(0)[count:].mean().clamp_min(1e-6)  # ()
        return cls(vectors.T.flip(0)[:count].contiguous(), spread, rest, torch.zeros_like(rest))

    def distances(self, standard: Tensor) -> Tensor:
        """Squared distances of standardised features `(N, f)` from their mean, `(N,)`."""
        along = (standard @ self.axes.T).square()  # (N, r)
        beside = (standard.square().sum(dim=1) - along.sum(dim=1)).clamp_min(0.0)  # (N,)
        return (along / self.spread).sum(dim=1) + beside / self.rest

    def strange(self, standard: Tensor) -> Tensor:
        """Whether inputs are farther off than any that was seen, `(N,)`."""
        return self.distances(standard) > self.reach
