"""What each part of the tuning data wants a prompt to become."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idp.tune.examples import Example
from idp.tune.objective import Goal, Objective, length_groups

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["cluster_gradients"]

_EXAMPLES = 256
_BATCH = 64


def cluster_gradients(
    lm: LanguageModel,
    prompt: Tensor,
    examples: Sequence[Example],
    assigned: Sequence[int],
    *,
    goal: Goal = "blend",
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """Average the gradient of the loss with respect to a prompt over up to 256 examples of each cluster.

    At a prompt tuned on everything these gradients cancel out; where two of them point the same way, one prompt can
    serve both clusters, and where they oppose each other it cannot.

    Args:
        lm: the model; it is not changed.
        prompt: where the gradient is taken, `(n, d)`.
        examples: the tuning data.
        assigned: the cluster of each example, 0 to `c - 1`.
        goal: see `Objective`.
        seed: which examples of a large cluster.
        advance: called with 1 for every cluster just done.

    Returns:
        `(c, n * d)`, fp32 on the CPU; zeros for a cluster without examples.

    Source: gradients as a measure of which tasks may share parameters, arXiv 2001.06782 and 2109.04617.

    Example:
        >>> cluster_gradients(lm, static, tuning, assigned).shape  # doctest: +SKIP
        torch.Size([96, 2560])
    """
    objective, rng = Objective(lm, goal), random.Random(seed)
    members: list[list[Example]] = [[] for _ in range(max(assigned) + 1)]
    for example, cluster in zip(examples, assigned, strict=True):
        members[cluster].append(example)
    gradients = []
    for own in members:
        gradients.append(_mean_gradient(objective, prompt, rng.sample(own, min(_EXAMPLES, len(own)))))
        if advance:
            advance(1)
    return torch.stack(gradients)  # (c, n * d)


def _mean_gradient(objective: Objective, prompt: Tensor, examples: Sequence[Example]) -> Tensor:
    point = prompt.detach().clone().to(objective.lm.device).requires_grad_()  # (n, d)
    for group in length_groups(examples):
        for begin in range(0, len(group), _BATCH):
            part = [examples[i] for i in group[begin : begin + _BATCH]]
            torch.autograd.backward(objective.losses(point[None], part).sum() / len(examples))
    gradient = torch.zeros_like(point) if point.grad is None else point.grad  # (n, d)
    return gradient.float().cpu().flatten()  # (n * d,)
