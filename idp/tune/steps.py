"""What tuning runs share: which examples a step takes, when a run is measured and saved, and how it goes on."""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from idp.errors import ModelError
from idp.tune.checkpoint import load_tensors, save_tensors
from idp.tune.examples import Example
from idp.tune.plan import Plan

if TYPE_CHECKING:
    from idp.tune.objective import Objective

__all__ = ["Run", "diverged", "drawn", "drive", "judges", "mean_loss", "optimizer_tensors", "run_key", "written"]

SAVE_EVERY = 50  # steps
SAVE_SECONDS = 60.0  # where steps take long: an interruption costs no more than this
HELD_OUT = 256


class Run(Protocol):
    """A computation that goes on step by step.

    Attributes:
        step: updates done.
    """

    step: int

    @property
    def finished(self) -> bool:
        """Whether no further step would change the result."""

    @property
    def losses(self) -> tuple[float, float]:
        """Training and held-out loss when they were last measured."""

    def update(self) -> None:
        """Do one step."""

    def measure(self) -> None:
        """Add a point to the curve, and keep what is the best so far."""

    def state(self) -> dict[str, Tensor]:
        """All that the rest of the run depends on."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a state."""

    def key(self) -> str:
        """A digest of everything the run depends on."""


def drive(
    run: Run,
    plan: Plan,
    checkpoint: Path | None = None,
    advance: Callable[[int], None] | None = None,
    watch: Callable[[float, float], None] | None = None,
    weight: int = 1,
) -> None:
    """Take a run to its end, from a checkpoint where there is one.

    Args:
        run: the run; it is measured before any update, and as often as the plan says.
        plan: how many steps, and how many measurements.
        checkpoint: a file to continue from and to write every 50 steps or minute; a finished run is read from it.
        advance: called with what was just done, `plan.steps * weight` in all.
        watch: called with training and held-out loss whenever they were measured.
        weight: what a step counts.

    Raises:
        OutputError: the checkpoint cannot be written.
    """
    advance, watch = advance or (lambda count: None), watch or (lambda train, held_out: None)
    key = run.key() if checkpoint else ""
    if checkpoint and (kept := load_tensors(checkpoint, key)) is not None:
        run.restore(kept)
    advance(run.step * weight)
    if not run.step:
        run.measure()
    watch(*run.losses)
    interval, saved = max(1, -(-plan.steps // plan.measurements)), time.monotonic()
    while run.step < plan.steps and not run.finished:
        run.update()
        if run.step % interval == 0 or run.step == plan.steps:
            run.measure()
            watch(*run.losses)
        due = run.step % SAVE_EVERY == 0 or time.monotonic() - saved > SAVE_SECONDS
        if checkpoint and (due or run.step == plan.steps or run.finished):
            save_tensors(checkpoint, run.state(), key)
            saved = time.monotonic()
        advance(weight)
    advance((plan.steps - run.step) * weight)


def drawn(count: int, plan: Plan, step: int) -> list[int]:
    """Which of `count` examples a step takes: each once before any is taken again.

    A function of seed and step alone, so that a run can begin anywhere.

    Example:
        >>> sorted(drawn(4, Plan(steps=2, batch_size=2), 0) + drawn(4, Plan(steps=2, batch_size=2), 1))
        [0, 1, 2, 3]
    """
    places = range(step * plan.batch_size, (step + 1) * plan.batch_size)
    return [_order(count, plan.seed, place // count)[place % count] for place in places]


@lru_cache(maxsize=64)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}-{epoch}").shuffle(order)
    return order


def judges(held_out: Sequence[Example], seed: int) -> list[Example]:
    """The held-out examples that are measured along the way: 256 of them, or all where there are fewer."""
    return random.Random(seed).sample(list(held_out), min(HELD_OUT, len(held_out)))


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What an optimiser remembers of a parameter; `optimizer.state[parameter]` may be set to it again."""
    kept = optimizer.state[parameter].items()
    return {name: torch.as_tensor(value) for name, value in kept if value is not None}


def run_key(objective: Objective, plan: Plan, parts: object, tensors: Sequence[Tensor]) -> str:
    """A digest of a run: its objective and model, its plan, whatever else has a `repr`, and where it starts."""
    teacher = objective.teacher
    model = (objective.lm.fingerprint, objective.lm.dtype, teacher and teacher.identity)
    digest = hashlib.sha256(repr((plan, objective.name, model, parts)).encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def mean_loss(losses: Sequence[float]) -> float:
    """The mean of the losses of some updates; NaN before the first one."""
    return sum(losses) / len(losses) if losses else math.nan


def written(loss: float) -> str:
    """A training loss as a log shows it.

    Example:
        >>> written(math.nan), written(1.5)
        ('none yet', '1.5000')
    """
    return "none yet" if math.isnan(loss) else f"{loss:.4f}"


def diverged(name: str, step: int, plan: Plan) -> ModelError:
    """The error for a loss or a gradient that is not a number."""
    return ModelError(
        f"tuning of {name!r} diverged at step {step} of {plan.steps}: the loss or its gradient is not finite. Lower "
        f"the learning rate ({plan.lr:g}), or load the model in float32."
    )
