"""How prompts are tuned: steps, optimiser and schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from idp.errors import TaskError, suggest

__all__ = ["OptimizerName", "Plan", "ScheduleName", "make_optimizer"]

OptimizerName = Literal["adamw", "adafactor"]
ScheduleName = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class Plan:
    """Everything about a tuning run but its data.

    Attributes:
        steps: updates of each prompt; 0 leaves it as it is.
        lr: peak learning rate, in units of an embedding's entries.
        batch_size: examples an update.
        optimizer: `adamw` (arXiv 1711.05101), or `adafactor` (arXiv 1804.04235) without relative steps and parameter
            scaling, as arXiv 2104.08691 uses it.
        schedule: after the warm-up half a cosine to zero, a line to zero, or the same rate to the end.
        warmup: updates over which the rate rises from zero; below 1 a share of the steps.
        weight_decay: as the optimiser defines it.
        clip: largest norm of a prompt's gradient; 0 leaves it as it is.
        patience: measurements of the held-out loss without a new lowest one after which a prompt is done; 0 for never.
        measurements: how often the held-out loss is measured, besides once before any update.
        rows_at_once: most examples whose activations are in memory at once; 0 for as many as `batch_size`. Gradients
            are added up over as many passes as that takes.
        seed: order of the examples, and which of the held-out ones are measured.

    Raises:
        TaskError: numbers that make no sense, or an unknown optimiser or schedule.

    Example:
        >>> Plan(steps=100, warmup=0.05).rate(4)
        0.02
    """

    steps: int
    lr: float = 0.02
    batch_size: int = 32
    optimizer: OptimizerName = "adamw"
    schedule: ScheduleName = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    patience: int = 0
    measurements: int = 10
    rows_at_once: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what everything later relies on."""
        if min(self.steps, self.patience, self.rows_at_once, self.batch_size - 1, self.measurements - 1) < 0:
            raise TaskError(
                f"cannot tune for {self.steps} steps of {self.batch_size} examples, {self.rows_at_once} at once, with "
                f"{self.measurements} measurements and a patience of {self.patience}."
            )
        for name in ("lr", "warmup", "weight_decay", "clip"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0) or (name == "lr" and value == 0):
                raise TaskError(f"cannot tune with {name} = {value}.")
        for kind, known in ((self.optimizer, get_args(OptimizerName)), (self.schedule, get_args(ScheduleName))):
            if kind not in known:
                raise TaskError(f"unknown optimizer or schedule {kind!r}. {suggest(str(kind), known)}")

    def rate(self, step: int) -> float:
        """The learning rate of an update, counted from 0: a linear rise, then what the schedule says."""
        rise = self.warmup if self.warmup >= 1 else math.ceil(self.warmup * self.steps)
        rise = max(1, min(int(rise), self.steps))
        if step < rise:
            return self.lr * (step + 1) / rise
        left = 1 - (step - rise) / max(1, self.steps - rise)
        shares = {"cosine": 0.5 * (1 - math.cos(math.pi * left)), "linear": left, "constant": 1.0}
        return self.lr * shares[self.schedule]


def make_optimizer(plan: Plan, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """Make the optimiser of a plan; its learning rate is set before every update."""
    if plan.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=plan.lr, weight_decay=plan.weight_decay)
    from transformers.optimization import Adafactor

    made: torch.optim.Optimizer = Adafactor(
        parameters, lr=plan.lr, weight_decay=plan.weight_decay, scale_parameter=False, relative_step=False
    )
    return made
