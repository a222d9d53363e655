"""Linear maps from features to arms, fitted to what arms cost or to which arm is believed best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["Linear", "expected_loss", "fit_costs", "fit_labels", "minimised", "unit_losses"]

_ITERATIONS = 200
_LABEL_L2 = 1e-4
_SMOOTHING = 0.1


@dataclass(frozen=True)
class Linear:
    """Standardise, then a linear map: `W ((x - mean) / std) + b`.

    Attributes:
        weight: `W`, `(m + 1, d)`.
        bias: `b`, `(m + 1,)`.
        mean: of the features it was fitted on, `(d,)`.
        std: of the same, `(d,)`.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def zero(cls, features: Tensor, arms: int) -> Linear:
        """Make a map to zeros with the mean and spread of features `(N, d)`; rows of NaN do not count."""
        known = features[~features.isnan().any(dim=1)]
        mean = known.mean(dim=0) if len(known) else torch.zeros_like(features[0])  # (d,)
        std = known.std(dim=0, correction=0) if len(known) else torch.ones_like(features[0])  # (d,)
        std = torch.where(std > 1e-12, std, torch.ones_like(std))
        weight = torch.zeros(arms, features.shape[1], dtype=torch.float64)  # (m + 1, d)
        return cls(weight, torch.zeros(arms, dtype=torch.float64), mean, std)

    def standard(self, features: Tensor) -> Tensor:
        """Standardise features `(N, d)`; a row of NaN (an empty input) counts as average."""
        return torch.nan_to_num((features - self.mean) / self.std)  # (N, d)

    def logits(self, features: Tensor) -> Tensor:
        """Map features `(N, d)` to logits `(N, m + 1)`."""
        return self.standard(features) @ self.weight.T + self.bias


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


def fit_costs(start: Linear, features: Tensor, losses: Tensor, l2: float) -> Linear:
    """Lower the expected loss of a choice drawn from the map's softmax, starting from a map and held to it.

    Args:
        start: where to start.
        features: `(N, d)`.
        losses: `(N, m + 1)`.
        l2: weight of the squared distance from the start.
    """
    return _minimised(start, features, lambda logits: expected_loss(logits, losses), l2)


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


def _minimised(start: Linear, features: Tensor, objective: Callable[[Tensor], Tensor], l2: float) -> Linear:
    """Lower an objective of the logits and the penalty."""
    standard = start.standard(features)  # (N, d)

    def penalised(weight: Tensor, bias: Tensor) -> Tensor:
        loss = objective(standard @ weight.T + bias) + l2 * (weight - start.weight).square().sum()
        # The bias is held by a thousandth of a weight: without any penalty it would grow for ever.
        return loss + 1e-3 * l2 * (bias - start.bias).square().sum()

    weight, bias = minimised(penalised, start.weight, start.bias)
    return Linear(weight, bias, start.mean, start.std)


def minimised(objective: Callable[..., Tensor], *start: Tensor) -> list[Tensor]:
    """Lower a function of some tensors by full-batch L-BFGS, which draws nothing at random.

    Args:
        objective: of as many tensors as there are in `start`; to a scalar.
        start: where to start.

    Returns:
        The tensors where it stopped, after 200 iterations at most.

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
