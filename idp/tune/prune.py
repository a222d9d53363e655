"""How many prompts a bank needs: those whose loss nobody would notice are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from idp.errors import TaskError
from idp.select.base import Calibration

__all__ = ["Pruned", "prune", "reduced"]


@dataclass(frozen=True)
class Pruned:
    """What is kept of a bank.

    Attributes:
        kept: positions of the prompts, in order.
        path: number of prompts and mean held-out loss of the choice among them, from all to one.
    """

    kept: tuple[int, ...]
    path: tuple[tuple[int, float], ...]


def prune(losses: Tensor, predicted: Tensor, always: Sequence[int] = ()) -> Pruned:
    """Leave out prompts, the least missed first, as long as the choice among the others loses no more.

    Among some prompts each input gets the one with the lowest *predicted* loss, and counts its *measured* loss. The
    fewest prompts are kept whose mean is within one standard error of the best number's, paired over inputs (Breiman
    et al. 1984, section 3.4.3). Of duplicates one is left; a prompt that no input is given goes first.

    Args:
        losses: of held-out inputs under each prompt, `(N, m)`.
        predicted: the same as far as features tell, from other inputs (`cross_predicted`), `(N, m)`.
        always: prompts that are never left out.

    Returns:
        What is kept.

    Raises:
        TaskError: tables of different shapes, or without inputs or prompts.
    """
    if losses.shape != predicted.shape or losses.ndim != 2 or 0 in losses.shape:
        raise TaskError(f"cannot prune by losses of shape {tuple(losses.shape)} and {tuple(predicted.shape)}.")
    kept = list(range(losses.shape[1]))
    steps = [(tuple(kept), _chosen(losses, predicted, kept))]
    while removable := [prompt for prompt in kept if prompt not in always and len(kept) > 1]:
        rest = {prompt: [other for other in kept if other != prompt] for prompt in removable}
        chosen = {prompt: _chosen(losses, predicted, others) for prompt, others in rest.items()}
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
    heirs = {hint: _heir(calibration, losses, hint, kept) for hint in sorted(set(calibration.hints or []))}
    hints = None if calibration.hints is None else [heirs[hint] for hint in calibration.hints]
    return Calibration(calibration.inputs, losses[:, columns], calibration.groups, hints)


def _heir(calibration: Calibration, losses: Tensor, hint: int, kept: Sequence[int]) -> int:
    """The place among the kept prompts of one of them, or of that with the lowest mean loss on its inputs."""
    if hint in kept:
        return list(kept).index(hint)
    rows = [row for row, own in enumerate(calibration.hints or []) if own == hint]
    return int(losses[rows][:, list(kept)].mean(0).argmin())


def _chosen(losses: Tensor, predicted: Tensor, kept: list[int]) -> Tensor:
    """Measured losses of the choice among some prompts, `(N,)`."""
    choice = predicted[:, kept].argmin(1)  # (N,)
    return losses[:, kept].gather(1, choice[:, None])[:, 0]


def _no_worse(losses: Tensor, best: Tensor) -> bool:
    excess = losses - best  # (N,)
    error = float(excess.std(correction=0)) / len(excess) ** 0.5
    return bool(excess.mean() <= error + 1e-12)
