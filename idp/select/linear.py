"""Maps from features to arms, linear or with one hidden layer, fitted to what arms cost or which is believed best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softmax

__all__ = [
    "OBJECTIVES",
    "Linear",
    "Objective",
    "expected_loss",
    "fit_beliefs",
    "fit_costs",
    "fit_labels",
    "minimised",
    "unit_losses",
]

_ITERATIONS = 100
_LABEL_L2 = 1e-4
_SMOOTHING = 0.1

Objective: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Of logits `(N, m + 1)` and losses `(N, m + 1)`; to a scalar that is lowered."""


def unit_losses(losses: Tensor) -> Tensor:
    """Take from each row its mean, which no choice changes, and divide by the spread that is left; `(N, m + 1)`."""
    centred = losses - losses.mean(dim=1, keepdim=True)
    return centred / centred.square().mean().sqrt().clamp_min(torch.finfo(torch.float64).tiny ** 0.5)


def expected_loss(logits: Tensor, losses: Tensor) -> Tensor:
    """Mean loss of arms drawn from the softmax of logits `(N, m + 1)`, with losses `(N, m + 1)`.

    Example:
        >>> expected_loss(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]))
        tensor(2.)
    """
    return (logits.softmax(dim=-1) * losses).sum(dim=-1).mean()


def ranking(logits: Tensor, losses: Tensor) -> Tensor:
    """How far the softmax is from one that ranks arms by what they cost (ListNet, Cao et al. 2007, section 4)."""
    return cross_entropy(logits, softmax(-losses, dim=-1))


OBJECTIVES: dict[str, Objective] = {"expected": expected_loss, "ranking": ranking}
"""What a map may be fitted to, by name."""


@dataclass(frozen=True)
class Linear:
    """Standardise, then a linear map, and where there is a hidden layer its part: `W z + b + V relu(U z + c)`.

    Attributes:
        weight: `W`, `(m + 1, d)`.
        bias: `b`, `(m + 1,)`.
        mean: of the features it was fitted on, `(d,)`.
        std: of the same, `(d,)`.
        outer: `V`, `(m + 1, h)`; None without a hidden layer, as the next two.
        inner: `U`, `(h, d)`.
        offset: `c`, `(h,)`.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    outer: Tensor | None = None
    inner: Tensor | None = None
    offset: Tensor | None = None

    @classmethod
    def zero(cls, features: Tensor, arms: int) -> Linear:
        """Make a map to zeros with the mean and spread of features `(N, d)`; rows of NaN do not count."""
        known = features[~features.isnan().any(dim=1)]
        mean = known.mean(dim=0) if len(known) else torch.zeros_like(features[0])  # (d,)
        std = known.std(dim=0, correction=0) if len(known) else torch.ones_like(features[0])  # (d,)
        std = torch.where(std > 1e-12, std, torch.ones_like(std))
        weight = torch.zeros(arms, features.shape[1], dtype=torch.float64)  # (m + 1, d)
        return cls(weight, torch.zeros(arms, dtype=torch.float64), mean, std)

    def widened(self, hidden: int, seed: int) -> Linear:
        """Return the same map with a hidden layer that changes nothing yet."""
        if not hidden:
            return self
        arms, width = self.weight.shape
        random = torch.Generator().manual_seed(seed)
        inner = torch.randn(hidden, width, generator=random, dtype=torch.float64) / width**0.5  # (h, d)
        outer, offset = inner.new_zeros(arms, hidden), inner.new_zeros(hidden)
        return replace(self, outer=outer, inner=inner, offset=offset)

    def check(self, arms: int, width: int) -> None:
        """Check that all tensors fit a number of arms and a width of features.

        Raises:
            ValueError: they do not.
        """
        hidden = 0 if self.offset is None else len(self.offset)
        expected = [(arms, width), (arms,), (width,), (width,), (arms, hidden), (hidden, width), (hidden,)]
        shapes = [tuple(tensor.shape) for tensor in self.tensors.values()]
        if shapes != (expected if hidden else expected[:4]):
            raise ValueError(f"tensors of shapes {shapes} for {arms} arms and width {width}")

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What it is made of, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def standard(self, features: Tensor) -> Tensor:
        """Standardise features `(N, d)`; a row of NaN (an empty input) counts as average."""
        return torch.nan_to_num((features - self.mean) / self.std)  # (N, d)

    def logits(self, features: Tensor) -> Tensor:
        """Map features `(N, d)` to logits `(N, m + 1)`."""
        return self.of_standard(self.standard(features))

    def of_standard(self, standard: Tensor) -> Tensor:
        """Map standardised features `(N, d)` to logits `(N, m + 1)`."""
        logits = standard @ self.weight.T + self.bias
        if self.outer is None or self.inner is None or self.offset is None:
            return logits
        return logits + (standard @ self.inner.T + self.offset).relu() @ self.outer.T


def fit_labels(features: Tensor, labels: Tensor, arms: int) -> Linear:
    """Fit which arm is believed best: logistic regression with a tenth of the belief spread over all arms.

    The spread keeps arms that nobody believes in within reach of `fit_costs`.

    Args:
        features: `(N, d)`.
        labels: `(N,)`, 0 to `arms - 1`.
        arms: `m + 1`.
    """
    return _minimised(
        Linear.zero(features, arms),
        features,
        lambda logits: cross_entropy(logits, labels, label_smoothing=_SMOOTHING),
        _LABEL_L2,
    )


def fit_beliefs(features: Tensor, beliefs: Tensor) -> Linear:
    """Fit how likely each arm is the best, as somebody else believes (arXiv 1503.02531).

    Args:
        features: `(N, d)`.
        beliefs: `(N, m + 1)`, rows that sum to 1.
    """
    start = Linear.zero(features, beliefs.shape[1])
    return _minimised(start, features, lambda logits: cross_entropy(logits, beliefs), _LABEL_L2)


def fit_costs(
    start: Linear, features: Tensor, losses: Tensor, l2: float, objective: Objective = expected_loss
) -> Linear:
    """Lower what the map's choices cost, starting from a map and held to it.

    Args:
        start: where to start.
        features: `(N, d)`.
        losses: `(N, m + 1)`.
        l2: weight of the squared distance from the start.
        objective: what is lowered; one of `OBJECTIVES`.
    """
    return _minimised(start, features, lambda logits: objective(logits, losses), l2)


def _minimised(start: Linear, features: Tensor, objective: Callable[[Tensor], Tensor], l2: float) -> Linear:
    """Lower an objective of the logits and the penalty."""
    standard = start.standard(features)  # (N, d)
    names = [name for name in start.tensors if name not in ("mean", "std")]
    begin = [start.tensors[name] for name in names]
    # Biases are held by a thousandth of a weight: without any penalty they would grow for ever.
    holds = [l2 if tensor.ndim == 2 else 1e-3 * l2 for tensor in begin]

    def penalised(*tensors: Tensor) -> Tensor:
        logits = replace(start, **dict(zip(names, tensors, strict=True))).of_standard(standard)
        held = zip(holds, tensors, begin, strict=True)
        return objective(logits) + sum(weight * (one - other).square().sum() for weight, one, other in held)

    return replace(start, **dict(zip(names, minimised(penalised, *begin), strict=True)))


def minimised(objective: Callable[..., Tensor], *start: Tensor) -> list[Tensor]:
    """Lower a function of some tensors by full-batch L-BFGS, which draws nothing at random.

    Args:
        objective: of as many tensors as there are in `start`; to a scalar.
        start: where to start.

    Returns:
        The tensors where it stopped, after 100 iterations at most.

    Example:
        >>> minimised(lambda x: (x - 2).square().sum(), torch.zeros(1))[0].round()
        tensor([2.])
    """
    parameters = [tensor.clone().requires_grad_() for tensor in start]
    optimizer = torch.optim.LBFGS(parameters, max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective(*parameters)
        torch.autograd.backward(loss)
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return [parameter.detach() for parameter in parameters]
