"""How many prompts a bank needs: those whose loss nobody would notice are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from idp.errors import TaskError
from idp.select.calibration import Calibration

__all__ = ["Pruned", "prune", "reduced"]


@dataclass(frozen=True)
class Pruned:
    """What is kept of a bank.

    Attributes:
        kept: positions of the prompts, in order.
        path: number of prompts and mean held-out loss of the choice among them, from all to as few as may be.
    """

    kept: tuple[int, ...]
    path: tuple[tuple[int, float], ...]


def prune(losses: Tensor, hints: Sequence[int], always: Sequence[int] = ()) -> Pruned:
    """Leave out prompts, the least missed first, as long as the choice among the others loses no more.

    Each input gets the prompt of its part; where that was left out, the part gets the one of the others that serves its
    inputs best. The fewest prompts are kept whose mean loss is within one standard error of the best number's, paired
    over inputs (Breiman et al. 1984, section 3.4.3). Of duplicates one is left; a prompt of no input goes first.

    What a router of some kind would choose is no measure here: judged by a ridge regression on mean embeddings, banks
    of 21 prompts shrank to 4 and to 1, although the prompts of their parts lost far less than the static one.

    Args:
        losses: of held-out inputs under each prompt, `(N, m)`.
        hints: the prompt of each input's part, `N` positions.
        always: prompts that are never left out.

    Returns:
        What is kept.

    Raises:
        TaskError: a table without inputs or prompts, or not a hint for every input.

    Example:
        >>> prune(torch.tensor([[0.5, 0.2, 0.3], [0.5, 0.3, 0.2]]), hints=[1, 1], always=[0]).kept
        (0, 1)
    """
    if losses.ndim != 2 or 0 in losses.shape or len(hints) != len(losses):
        raise TaskError(f"cannot prune by losses of shape {tuple(losses.shape)} and {len(hints)} hints.")
    parts = _by_part(losses, hints)
    kept = list(range(losses.shape[1]))
    steps = [(tuple(kept), _chosen(losses, hints, parts, kept))]
    while removable := [prompt for prompt in kept if prompt not in always and len(kept) > 1]:
        rest = {prompt: [other for other in kept if other != prompt] for prompt in removable}
        chosen = {prompt: _chosen(losses, hints, parts, others) for prompt, others in rest.items()}
        least = min(removable, key=lambda prompt: (float(chosen[prompt].mean()), -prompt))
        kept = rest[least]
        steps.append((tuple(kept), chosen[least]))
    best = min(steps, key=lambda step: float(step[1].mean()))[1]
    small = [prompts for prompts, chosen_losses in steps if _no_worse(chosen_losses, best)]
    return Pruned(small[-1], tuple((len(prompts), float(mean.mean())) for prompts, mean in steps))


def reduced(calibration: Calibration, kept: Sequence[int]) -> Calibration:
    """A calibration for some of the prompts: hints at others become the one that serves their inputs best."""
    losses = calibration.losses
    assert losses is not None  # noqa: S101  (whoever prunes has measured them)
    columns = [*kept, losses.shape[1] - 1]
    hints = calibration.hints
    if hints is not None:
        heirs = _heirs(_by_part(losses, hints), kept)
        hints = [heirs[hint] for hint in hints]
    return Calibration(calibration.inputs, losses[:, columns], calibration.groups, hints)


def _by_part(losses: Tensor, hints: Sequence[int]) -> dict[int, Tensor]:
    """Mean loss of each part's inputs under each prompt, `(m,)`."""
    places = torch.tensor(hints)
    return {part: losses[places == part].mean(0) for part in sorted(set(hints))}


def _heirs(parts: dict[int, Tensor], kept: Sequence[int]) -> dict[int, int]:
    """For each part the place among the kept prompts of its own, or of that with the lowest mean loss on its inputs."""
    order = list(kept)
    return {part: order.index(part) if part in order else int(means[order].argmin()) for part, means in parts.items()}


def _chosen(losses: Tensor, hints: Sequence[int], parts: dict[int, Tensor], kept: list[int]) -> Tensor:
    """Losses of the choice among some prompts, `(N,)`."""
    heirs = _heirs(parts, kept)
    choice = torch.tensor([heirs[hint] for hint in hints])  # (N,)
    return losses[:, kept].gather(1, choice[:, None])[:, 0]


def _no_worse(losses: Tensor, best: Tensor) -> bool:
    excess = losses - best  # (N,)
    error = float(excess.std(correction=0)) / len(excess) ** 0.5
    return bool(excess.mean() <= error + 1e-12)
