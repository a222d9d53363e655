"""Which prompt an input should get, as far as its features tell: the assignment step between rounds of tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idp.errors import TaskError

__all__ = ["Gate", "balanced"]

_PENALTIES = np.logspace(-1, 5, 13)
_SWEEPS = 500
_SHARPNESS = 0.2


@dataclass(frozen=True, eq=False)
class Gate:
    """Expected losses as a linear function of features.

    The loss of a single example under a prompt is mostly noise, and assigning examples by it collapsed to one prompt.
    What features predict of it is what a router could ever act on.

    Attributes:
        model: ridge regression from standardised features to one loss a prompt.

    Example:
        >>> gate = Gate.fit(features, losses)  # doctest: +SKIP
        >>> gate.expected(features).shape  # doctest: +SKIP
        torch.Size([6000, 20])
    """

    model: Any

    @classmethod
    def fit(cls, features: Tensor, losses: Tensor) -> Gate:
        """Fit features `(N, f)` to losses `(N, m)`; the penalty is chosen by leave-one-out error.

        Raises:
            TaskError: there is nothing to fit.
        """
        if len(features) != len(losses) or not len(losses):
            raise TaskError(f"cannot learn from {len(features)} inputs and {len(losses)} rows of losses.")
        return cls(_ridge().fit(features.numpy(), _differences(losses).numpy()))

    def expected(self, features: Tensor) -> Tensor:
        """Predict how far each prompt's loss is above or below the mean prompt's: `(N, f)` to `(N, m)`."""
        predicted = torch.as_tensor(self.model.predict(features.numpy()), dtype=torch.float64)
        return predicted.reshape(len(features), -1)


def balanced(costs: Tensor, strength: float, current: Tensor | None = None) -> Tensor:
    """Assign inputs to prompts by their costs, held towards parts of equal size.

    Responsibilities `r_ij = exp(-(c_ij - g_j) / t) / sum_j ...`, where the `g_j` are moved until the shares of the
    prompts come near to equal: entropic optimal transport whose column constraint is as hard as `strength` says
    (arXiv 1607.05816), and `t` is a fifth of the costs' spread within inputs, so that soft parts are nearly hard ones.
    An input goes to its largest responsibility, or stays where it is if that is hardly smaller: where features tell
    nothing, costs are the same for all inputs, and all would move to one prompt.

    Args:
        costs: `(N, m)`.
        strength: 0 assigns every input to its lowest cost, 1 makes the (soft) parts equally large.
        current: the prompt that each input has now, `(N,)`.

    Returns:
        The prompt of each input, `(N,)`.

    Raises:
        TaskError: a strength outside [0, 1], or costs that are not finite.

    Example:
        >>> balanced(torch.tensor([[0.0, 0.3], [0.0, 0.1]]), strength=1.0).tolist()
        [0, 1]
    """
    if not 0 <= strength <= 1 or not bool(torch.isfinite(costs).all()):
        raise TaskError(f"cannot balance parts with strength {strength}: give 0 to 1, and finite costs.")
    spread = float((costs - costs.mean(1, keepdim=True)).square().mean().sqrt())
    scaled = -costs / (_SHARPNESS * spread or 1.0)  # (N, m)
    if current is not None:
        scaled = scaled + torch.nn.functional.one_hot(current, costs.shape[1])
    offsets = torch.zeros(costs.shape[1], dtype=costs.dtype)  # (m,)
    for _ in range(_SWEEPS if strength else 0):
        shares = (scaled + offsets).softmax(1).mean(0)  # (m,)
        # Damped towards zero, so that a strength below 1 stops short of equal shares.
        offsets = strength * (offsets - (shares * costs.shape[1]).clamp_min(1e-12).log())
    return (scaled + offsets).argmax(1)


def _ridge() -> Any:
    from sklearn.linear_model import RidgeCV  # type: ignore[import-untyped, unused-ignore]
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped, unused-ignore]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped, unused-ignore]

    return make_pipeline(StandardScaler(), RidgeCV(_PENALTIES))


def _differences(losses: Tensor) -> Tensor:
    """Losses without what all prompts share, which no choice changes: `(N, m)`."""
    return losses.double() - losses.double().mean(1, keepdim=True)
