"""Tuning one soft prompt on a frozen model."""

from __future__ import annotations

import hashlib
import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idp.errors import BankError, ModelError, TaskError
from idp.tune.checkpoint import Point, Progress, load_progress, save_progress
from idp.tune.examples import Example
from idp.tune.objective import Goal, Objective, length_groups

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Tuned", "learning_rate", "tune_prompt"]

_LOG = logging.getLogger(__name__)

_WARM_UP = 0.05
_CLIP = 1.0
_POINTS = 10
_SAVE_EVERY = 50
_HELD_OUT = 256


@dataclass(frozen=True, eq=False)
class Tuned:
    """A tuned prompt.

    Attributes:
        embedding: the prompt with the lowest held-out loss, `(n, d)` fp32.
        curve: training and held-out loss along the way.
    """

    embedding: Tensor
    curve: list[Point]

    @property
    def best(self) -> Point:
        """The point of the curve that the embedding is from."""
        return min(self.curve, key=lambda point: point.held_out)


def tune_prompt(
    lm: LanguageModel,
    init: Tensor,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    *,
    steps: int,
    lr: float = 0.02,
    batch_size: int = 32,
    seed: int = 0,
    goal: Goal = "blend",
    checkpoint: Path | None = None,
    advance: Callable[[int], None] | None = None,
) -> Tuned:
    """Tune a soft prompt by gradient descent through the frozen model.

    AdamW without weight decay on the prompt alone, kept in fp32; linear warm-up over 5 % of the steps, then a cosine to
    zero; gradient norm clipped to 1. Eleven times, the first before any update, the loss of up to 256 held-out examples
    is measured, and the prompt with the lowest is returned. The same arguments give the same prompt, whether or not
    the run was interrupted.

    Args:
        lm: the model; it is not changed.
        init: the prompt to start from, `(n, d)`.
        examples: what to tune on; each is used once before any is used again.
        held_out: what the best prompt is chosen by; none of `examples`.
        steps: updates; 0 returns `init`.
        lr: peak learning rate, in units of an embedding's entries.
        batch_size: examples an update.
        seed: order of the examples, and which of the held-out ones are measured.
        goal: see `Objective`.
        checkpoint: a file to continue from and to write every 50 steps; a finished run is read from it.
        advance: called with the number of updates just done.

    Returns:
        The prompt and its curve.

    Raises:
        TaskError: no examples, or numbers that make no sense.
        BankError: the prompt to start from is not as wide as the model.
        ModelError: the loss became NaN or infinite.
        OutputError: the checkpoint cannot be written.

    Source: arXiv 2104.08691; on compressed models, arXiv 2305.11186 section 4.

    Example:
        >>> tuned = tune_prompt(lm, init, examples, held_out, steps=600, seed=0)  # doctest: +SKIP
        >>> tuned.embedding.shape, tuned.best.held_out  # doctest: +SKIP
        (torch.Size([16, 160]), 2.31)
    """
    _check(lm, init, examples, held_out, steps=steps, lr=lr, batch_size=batch_size)
    run = _Run(lm, Objective(lm, goal), examples, _subset(held_out, seed), steps, lr, batch_size, seed)
    key = _key(run, init) if checkpoint else ""
    progress = (load_progress(checkpoint, key) if checkpoint else None) or Progress.begin(init)
    if advance and progress.step:
        advance(progress.step)
    if not progress.curve:
        run.measure(progress)
    interval = max(1, -(-steps // _POINTS))
    while progress.step < steps:
        run.update(progress)
        if progress.step % interval == 0 or progress.step == steps:
            run.measure(progress)
        if checkpoint and (progress.step % _SAVE_EVERY == 0 or progress.step == steps):
            save_progress(checkpoint, progress, key)
        if advance:
            advance(1)
    return Tuned(progress.best, progress.curve)


@dataclass(frozen=True, eq=False)
class _Run:
    """What stays the same during a run."""

    lm: LanguageModel
    objective: Objective
    examples: Sequence[Example]
    held_out: Sequence[Example]
    steps: int
    lr: float
    batch_size: int
    seed: int

    def update(self, progress: Progress) -> None:
        """Do one step of AdamW on the next batch."""
        batch = self.batch(progress.step)
        prompt = progress.embedding.clone().to(self.lm.device).requires_grad_()  # (n, d)
        loss = 0.0
        for group in length_groups(batch):
            part = self.objective.losses(prompt[None], [batch[i] for i in group]).sum() / len(batch)
            torch.autograd.backward(part)
            loss += float(part.detach())
        assert prompt.grad is not None  # noqa: S101  (every loss depends on the prompt)
        gradient = prompt.grad.cpu()  # (n, d)
        if not math.isfinite(loss) or not bool(torch.isfinite(gradient).all()):
            raise ModelError(
                f"tuning diverged at step {progress.step} of {self.steps}: the loss or its gradient is not finite. "
                f"Lower the learning rate ({self.lr:g}), or load the model in float32."
            )
        gradient = gradient * min(1.0, _CLIP / (float(gradient.norm()) + 1e-6))
        _adam(progress, gradient, learning_rate(progress.step, self.steps, self.lr))
        progress.step += 1
        progress.train_sum += loss
        progress.train_count += 1

    def batch(self, step: int) -> list[Example]:
        """The examples of a step: a function of the seed and the step alone, so a run can begin anywhere."""
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        count = len(self.examples)
        return [self.examples[_order(count, self.seed, place // count)[place % count]] for place in places]

    def measure(self, progress: Progress) -> None:
        """Add a point to the curve, and keep the prompt if it is the best so far."""
        held_out = self.held_out_loss(progress.embedding)
        if not math.isfinite(held_out):
            raise ModelError(f"the held-out loss at step {progress.step} is not finite: load the model in float32.")
        if not progress.curve or held_out < min(point.held_out for point in progress.curve):
            progress.best = progress.embedding.clone()
        train = progress.train_sum / progress.train_count if progress.train_count else math.nan
        progress.curve.append(Point(progress.step, train, held_out))
        progress.train_sum, progress.train_count = 0.0, 0
        _LOG.info("step %d of %d: training loss %.4f, held out %.4f", progress.step, self.steps, train, held_out)

    @torch.no_grad()
    def held_out_loss(self, embedding: Tensor) -> float:
        """Mean loss of the held-out examples under a prompt `(n, d)`."""
        total = 0.0
        for group in length_groups(self.held_out):
            for begin in range(0, len(group), self.batch_size):
                part = [self.held_out[i] for i in group[begin : begin + self.batch_size]]
                total += float(self.objective.losses(embedding[None], part).sum())
        return total / len(self.held_out)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the rate of an update: a linear rise over the first 5 % of the steps, then half a cosine down to zero.

    Example:
        >>> [round(learning_rate(step, 100, 1.0), 2) for step in (0, 4, 5, 52, 99)]
        [0.2, 1.0, 1.0, 0.51, 0.0]
    """
    warm_up = max(1, math.ceil(_WARM_UP * steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _adam(progress: Progress, gradient: Tensor, rate: float) -> None:
    """AdamW (arXiv 1711.05101) with torch's constants and no decay, its state kept where a checkpoint finds it."""
    optimizer = torch.optim.AdamW([progress.embedding], lr=rate, weight_decay=0.0)
    optimizer.state[progress.embedding] = {
        "step": torch.tensor(float(progress.step)),
        "exp_avg": progress.exp_avg,
        "exp_avg_sq": progress.exp_avg_sq,
    }
    progress.embedding.grad = gradient
    optimizer.step()
    progress.embedding.grad = None


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}-{epoch}").shuffle(order)
    return order


def _subset(held_out: Sequence[Example], seed: int) -> Sequence[Example]:
    return random.Random(seed).sample(list(held_out), min(_HELD_OUT, len(held_out)))


def _key(run: _Run, init: Tensor) -> str:
    """A digest of everything a run depends on."""
    settings = (run.steps, run.lr, run.batch_size, run.seed, run.objective.goal, run.lm.fingerprint)
    digest = hashlib.sha256(repr((settings, list(run.examples), list(run.held_out))).encode())
    digest.update(init.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check(
    lm: LanguageModel,
    init: Tensor,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    *,
    steps: int,
    lr: float,
    batch_size: int,
) -> None:
    if not examples or not held_out:
        raise TaskError(
            "a prompt needs examples to be tuned on and others that are held out; one of the lists is empty."
        )
    if steps < 0 or batch_size < 1 or not (lr > 0 and math.isfinite(lr)):
        raise TaskError(f"cannot tune for {steps} steps of {batch_size} examples at a learning rate of {lr}.")
    if init.ndim != 2 or init.shape[0] < 1 or init.shape[1] != lm.hidden_size:
        raise BankError(
            f"the prompt to start from has shape {tuple(init.shape)}, but {lm.name} needs (n, {lm.hidden_size})."
        )
