"""Tuning soft prompts on a frozen model, any number of them side by side."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from idp.errors import BankError, TaskError
from idp.model.gradients import no_gradient
from idp.tune.batches import batches_of
from idp.tune.examples import Example
from idp.tune.objective import Objective
from idp.tune.plan import Plan, make_optimizer
from idp.tune.steps import diverged, drawn, drive, judges, mean_loss, optimizer_tensors, run_key, written

__all__ = ["Job", "Point", "Tuned", "tune"]

_LOG = logging.getLogger(__name__)


class Point(NamedTuple):
    """One point of a tuning curve.

    Attributes:
        step: updates done.
        train: mean loss of the batches since the last point; NaN before the first update.
        held_out: mean loss of the held-out examples.
    """

    step: int
    train: float
    held_out: float


@dataclass(frozen=True, eq=False)
class Job:
    """One prompt to be tuned.

    Attributes:
        name: what it is called in messages.
        init: the prompt to start from, `(n, d)`.
        examples: what to tune on; each is used once before any is used again.
        held_out: what the best prompt is chosen by; none of `examples`.
    """

    name: str
    init: Tensor
    examples: Sequence[Example]
    held_out: Sequence[Example]


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


def tune(
    objective: Objective,
    jobs: Sequence[Job],
    plan: Plan,
    *,
    checkpoint: Path | None = None,
    advance: Callable[[int], None] | None = None,
    watch: Callable[[float, float], None] | None = None,
) -> list[Tuned]:
    """Tune soft prompts by gradient descent through the frozen model.

    All prompts are updated in every step, each on a batch of its own examples; rows of one length share a pass whatever
    their prompt, and the prompts are kept in fp32. Before any update, and as often as the plan says, the loss of up to
    256 held-out examples of each is measured, and the prompt with the lowest is returned. The same arguments give the
    same prompts, whether or not the run was interrupted.

    Args:
        objective: the loss, and the model, which is not changed.
        jobs: the prompts and their examples.
        plan: steps, optimiser and schedule.
        checkpoint: a file to continue from and to write every 50 steps; a finished run is read from it.
        advance: called with the number of updates of single prompts just done, `steps * len(jobs)` in all.
        watch: called with training and held-out loss, means over the prompts, whenever they were measured.

    Returns:
        The prompts and their curves, in the order of the jobs.

    Raises:
        TaskError: no jobs, or one without examples.
        BankError: a prompt to start from is not as wide as the model.
        PromptTooLongError: a prompt and an example do not fit into the model's context.
        ModelError: a loss became NaN or infinite.
        OutputError: the checkpoint cannot be written.

    Source: arXiv 2104.08691; on compressed models, arXiv 2305.11186 section 4.

    Example:
        >>> job = Job("static", init, examples, held_out)  # doctest: +SKIP
        >>> [tuned] = tune(Objective(lm, "answer"), [job], Plan(steps=600))  # doctest: +SKIP
        >>> tuned.embedding.shape, tuned.best.held_out  # doctest: +SKIP
        (torch.Size([16, 160]), 2.31)
    """
    if not jobs:
        raise TaskError("there is no prompt to tune.")
    for job in jobs:
        _check(objective, job)
    run = _Run(objective, jobs, plan)
    drive(run, plan, checkpoint, advance, watch, weight=len(jobs))
    return [Tuned(course.best, course.curve) for course in run.courses]


@dataclass(eq=False)
class _Course:
    """Where one prompt stands."""

    embedding: Tensor  # (n, d) fp32, what the optimiser moves
    best: Tensor  # (n, d), that of the lowest held-out loss
    curve: list[Point] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # of the batches since the last point
    done: bool = False


class _Run:
    """All prompts of a run."""

    def __init__(self, objective: Objective, jobs: Sequence[Job], plan: Plan) -> None:
        self.objective, self.jobs, self.plan = objective, jobs, plan
        self.step = 0
        starts = [job.init.detach().to("cpu", torch.float32, copy=True).contiguous() for job in jobs]
        self.courses = [_Course(start, start.clone()) for start in starts]
        self.optimizer = make_optimizer(plan, starts)
        self.examples = [objective.views(job.examples) for job in jobs]
        self.held_out = [objective.views(judges(job.held_out, plan.seed)) for job in jobs]
        self.rows = plan.rows_at_once or plan.batch_size

    @property
    def active(self) -> list[int]:
        """The prompts that are not done."""
        return [number for number, course in enumerate(self.courses) if not course.done]

    @property
    def finished(self) -> bool:
        """Whether all prompts are done."""
        return not self.active

    @property
    def losses(self) -> tuple[float, float]:
        """Training and held-out loss when they were last measured, means over the prompts."""
        last = [course.curve[-1] for course in self.courses]
        return sum(point.train for point in last) / len(last), sum(point.held_out for point in last) / len(last)

    def update(self) -> None:
        """Do one step with every prompt that is not done."""
        numbers = self.active
        drawn = [(number, example) for number in numbers for example in self.batch(number)]
        device = self.objective.lm.device
        leaves = [self.courses[number].embedding.clone().to(device).requires_grad_() for number in numbers]
        places = {number: place for place, number in enumerate(numbers)}
        step = self.objective.behind(leaves)
        totals = dict.fromkeys(numbers, 0.0)
        for rows in batches_of([example for _, example in drawn], self.rows):
            part = [drawn[row] for row in rows]
            losses = step.losses([example for _, example in part], [places[number] for number, _ in part])
            if not losses.requires_grad:
                raise no_gradient(self.objective.lm)
            torch.autograd.backward(losses.sum() / self.plan.batch_size)
            for (number, _), loss in zip(part, losses.tolist(), strict=True):
                totals[number] += loss / self.plan.batch_size
        step.backward()
        for number, leaf in zip(numbers, leaves, strict=True):
            self.courses[number].embedding.grad = self._gradient(number, leaf, totals[number])
            self.courses[number].losses.append(totals[number])
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def _gradient(self, number: int, leaf: Tensor, loss: float) -> Tensor:
        if leaf.grad is None:
            raise no_gradient(self.objective.lm)
        gradient = leaf.grad.cpu()  # (n, d)
        if not math.isfinite(loss) or not bool(torch.isfinite(gradient).all()):
            raise diverged(self.jobs[number].name, self.step, self.plan)
        if not self.plan.clip:
            return gradient
        return gradient * min(1.0, self.plan.clip / (float(gradient.norm()) + 1e-6))

    def batch(self, number: int) -> list[Example]:
        """The examples of this step."""
        examples = self.examples[number]
        return [examples[place] for place in drawn(len(examples), self.plan, self.step)]

    def measure(self) -> None:
        """Add a point to the curve of every prompt that is not done, and keep those that are the best so far."""
        numbers = self.active
        for number, held_out in zip(numbers, self.held_out_losses(numbers), strict=True):
            course, name = self.courses[number], self.jobs[number].name
            if not math.isfinite(held_out):
                raise diverged(name, self.step, self.plan)
            if not course.curve or held_out < min(point.held_out for point in course.curve):
                course.best = course.embedding.detach().clone()
            train = mean_loss(course.losses)
            course.curve.append(Point(self.step, train, held_out))
            course.losses.clear()
            since = len(course.curve) - 1 - min(range(len(course.curve)), key=lambda i: course.curve[i].held_out)
            course.done = 0 < self.plan.patience <= since
            _LOG.info("%s, step %d: training loss %s, held out %.4f", name, self.step, written(train), held_out)

    @torch.no_grad()
    def held_out_losses(self, numbers: Sequence[int]) -> list[float]:
        """Mean loss of the held-out examples under each of some prompts."""
        step = self.objective.behind([self.courses[number].embedding for number in numbers])
        drawn = [(place, example) for place, number in enumerate(numbers) for example in self.held_out[number]]
        totals = [0.0] * len(numbers)
        for rows in batches_of([example for _, example in drawn], self.rows):
            part = [drawn[row] for row in rows]
            losses = step.losses([example for _, example in part], [place for place, _ in part])
            for (place, _), loss in zip(part, losses.tolist(), strict=True):
                totals[place] += loss
        return [total / len(self.held_out[number]) for total, number in zip(totals, numbers, strict=True)]

    def state(self) -> dict[str, Tensor]:
        """All that the rest of the run depends on."""
        tensors = {"step": torch.tensor(self.step)}
        for number, course in enumerate(self.courses):
            tensors[f"{number}/embedding"], tensors[f"{number}/best"] = course.embedding, course.best
            tensors[f"{number}/losses"] = torch.tensor(course.losses, dtype=torch.float64)
            tensors[f"{number}/curve"] = torch.tensor(course.curve, dtype=torch.float64).view(-1, 3)  # (points, 3)
            tensors[f"{number}/done"] = torch.tensor(course.done)
            kept = optimizer_tensors(self.optimizer, course.embedding)
            tensors |= {f"{number}/state/{name}": value for name, value in kept.items()}
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self.step = int(tensors["step"])
        for number, course in enumerate(self.courses):
            own = {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{number}/")}
            course.embedding.copy_(own["embedding"])
            course.best = own["best"]
            course.losses = own["losses"].tolist()
            course.curve = [Point(int(step), train, held_out) for step, train, held_out in own["curve"].tolist()]
            course.done = bool(own["done"])
            kept = {name.removeprefix("state/"): value for name, value in own.items() if name.startswith("state/")}
            if kept:
                self.optimizer.state[course.embedding] = kept

    def key(self) -> str:
        """A digest of everything the run depends on."""
        parts = list(zip([job.name for job in self.jobs], self.examples, self.held_out, strict=True))
        return run_key(self.objective, self.plan, parts, [job.init for job in self.jobs])


def _check(objective: Objective, job: Job) -> None:
    if not job.examples or not job.held_out:
        raise TaskError(
            f"prompt {job.name!r} needs examples to be tuned on and others that are held out; one list is empty."
        )
    width = objective.lm.hidden_size
    if job.init.ndim != 2 or job.init.shape[0] < 1 or job.init.shape[1] != width:
        raise BankError(
            f"prompt {job.name!r} starts from {tuple(job.init.shape)}, but {objective.lm.name} needs (n, {width})."
        )
