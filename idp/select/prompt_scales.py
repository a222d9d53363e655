"""Putting the scores of prompts on one scale: prompts that were tuned apart from each other are on none."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from idp.select.linear import expected_loss, minimised, unit_losses

__all__ = ["Scales", "centered", "fitted", "zscored"]

_L2 = 1e-2


class Scales(NamedTuple):
    """Of each prompt's log score, `(log s_i - mean_i) / std_i`.

    Attributes:
        mean: `(m,)`.
        std: `(m,)`.
    """

    mean: Tensor
    std: Tensor

    def apply(self, log: Tensor) -> Tensor:
        """Scale log scores `(N, m)`."""
        return (log - self.mean) / self.std


def centered(log: Tensor) -> Scales:
    """Subtract the mean of log scores `(N, m)`.

    Example:
        >>> centered(torch.tensor([[1.0], [3.0]])).apply(torch.tensor([[2.0]]))
        tensor([[0.]])
    """
    mean = log.mean(dim=0)
    return Scales(mean, torch.ones_like(mean))


def zscored(log: Tensor) -> Scales:
    """Subtract the mean and divide by the standard deviation of log scores `(N, m)`; by 1 where they do not vary."""
    std = log.std(dim=0, correction=0)
    return Scales(log.mean(dim=0), torch.where(std > 1e-6, std, torch.ones_like(std)))


def fitted(log: Tensor, losses: Tensor, l2: float = _L2) -> Scales:
    """Fit a temperature and an offset of each prompt to what the prompts cost.

    With the z-scored log scores `z`, the logits of the prompts are `exp(t_i) z_i + b_i` and that of "no prompt" is a
    constant `c`. All start at 0 and lower the expected loss of an arm drawn from the softmax of the logits,

        mean_x sum_i softmax(logits(x))_i L[x, i] + l2 (|t|^2 + (|b|^2 + c^2) / 1000),

    with losses in units of their spread between arms. Temperatures are positive: more attention is never held against
    a prompt. Offsets are nearly free, so where attention tells nothing the prompt that is best on average wins always;
    held like the temperatures they kept the fit from it, and its choices cost more on held-out questions.

    Args:
        log: `(N, m)`.
        losses: `(N, m + 1)`, the last of "no prompt".
        l2: weight of the penalty.

    Returns:
        Scales on which "no prompt" has 0, `(m,)` in fp32.

    Source: the expected loss of a stochastic policy, as in `RouterSelector`.
    """
    start = zscored(log.double())
    z, costs = start.apply(log.double()), unit_losses(losses.double())  # (N, m), (N, m + 1)

    def objective(temperature: Tensor, offset: Tensor, none: Tensor) -> Tensor:
        logits = torch.cat([z * temperature.exp() + offset, none.expand(len(z), 1)], dim=1)  # (N, m + 1)
        free = offset.square().sum() + none.square().sum()
        return expected_loss(logits, costs) + l2 * (temperature.square().sum() + 1e-3 * free)

    zeros = torch.zeros_like(start.mean)
    temperature, offset, none = minimised(objective, zeros, zeros, zeros.new_zeros(1))
    std = start.std / temperature.exp()
    return Scales((start.mean - (offset - none) * std).float(), std.float())
