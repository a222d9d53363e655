"""A mixture of prompts and the router that chooses among them, tuned together (SMoP)."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from idp.errors import BankError, TaskError
from idp.model.gradients import no_gradient
from idp.select.features import mean_embeddings
from idp.select.smop import Routing, route
from idp.tune.batches import batches_of
from idp.tune.examples import Example, reading
from idp.tune.initial import initial
from idp.tune.objective import Objective, Step
from idp.tune.plan import Plan, make_optimizer
from idp.tune.steps import diverged, drawn, drive, judges, mean_loss, optimizer_tensors, run_key, written

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Mixture", "MixtureConfig", "MixturePoint", "tune_mixture"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class MixtureConfig:
    """The shape of a mixture, and what is done in training only.

    Attributes:
        num_prompts: `k`.
        length: tokens `l` of each prompt.
        noise: spread of the noise on the router's logits, in units of the logit; 0 for none.
        balance: weight of the load-balance term of arXiv 2101.03961 (equation 4), `k sum_j f_j P_j` with `f_j` the
            share of a batch that goes to prompt `j` and `P_j` its mean probability: 1 where all prompts are used alike,
            up to `k` where one is. 0, the default, is what the authors' code does, which computes such a term and then
            leaves it out.

    Raises:
        TaskError: numbers that make no sense.
    """

    num_prompts: int = 4
    length: int = 5
    noise: float = 1.0
    balance: float = 0.0

    def __post_init__(self) -> None:
        """Check what everything later relies on."""
        if self.num_prompts < 1 or self.length < 1:
            raise TaskError(f"a mixture of {self.num_prompts} prompts of {self.length} tokens is not possible.")
        for name in ("noise", "balance"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise TaskError(f"a mixture cannot be tuned with {name} = {getattr(self, name)}; give 0 or more.")


class MixturePoint(NamedTuple):
    """One point of the curve of a mixture.

    Attributes:
        step: updates done.
        train: mean loss of the batches since the last point; NaN before the first update.
        held_out: mean loss of the held-out examples, routed without noise.
        counts: how many of them went to each prompt, `k` numbers.
    """

    step: int
    train: float
    held_out: float
    counts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Mixture:
    """A tuned mixture: the state with the lowest held-out loss.

    Attributes:
        embeddings: the prompts before their gate, `(k, l, d)` fp32.
        router: `(k, d)` fp32.
        curve: losses and assignments along the way.
        starts: the prompts before tuning, `(k, l, d)` fp32.
    """

    embeddings: Tensor
    router: Tensor
    curve: list[MixturePoint]
    starts: Tensor

    @property
    def best(self) -> MixturePoint:
        """The point of the curve that the state is from."""
        return min(self.curve, key=lambda point: point.held_out)

    def prompts(self, lm: LanguageModel, contexts: Sequence[Sequence[int]]) -> Tensor:
        """The prompt of each context as it was trained: `p_j P_j`, with the gate of that very context.

        Args:
            lm: the model.
            contexts: token ids of `N` contexts.

        Returns:
            `(N, l, d)` fp32.
        """
        return _gated(self.embeddings, route(self.router, mean_embeddings(lm, contexts)))


def tune_mixture(
    objective: Objective,
    config: MixtureConfig,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    plan: Plan,
    *,
    init: Tensor | str = "frequent",
    checkpoint: Path | None = None,
    advance: Callable[[int], None] | None = None,
    watch: Callable[[float, float], None] | None = None,
) -> Mixture:
    """Tune `k` prompts and a linear router side by side through the frozen model.

    With the mean input embedding `e(x)` of a context, `g = R e(x)`, in training `g + g eps` with `eps ~ N(0, 1)` and
    the `g` of the noise without gradient, `p = softmax(g)` and `j` the largest `p_j`, the prompt is `p_j P_j`: only one
    is used, and the gate is how the router gets a gradient. `R` starts orthogonal. Before any update, and as often as
    the plan says, the loss of up to 256 held-out examples is measured, without noise, and the state with the lowest is
    returned. The same arguments give the same mixture, whether or not the run was interrupted.

    Args:
        objective: the loss, and the model, which is not changed.
        config: the shape of the mixture.
        examples: what to tune on; each is used once before any is used again.
        held_out: what the best state is chosen by; none of `examples`.
        plan: steps, optimiser and schedule, prompts and router alike. `clip` bounds the norm of all gradients together.
        init: where the prompts start: `(k, l, d)`, or `(l, d)` for all of them; or what `initial` understands, drawn
            anew for each prompt.
        checkpoint: a file to continue from and to write every 50 steps; a finished run is read from it.
        advance: called with the number of updates just done, `steps` in all.
        watch: called with training and held-out loss whenever they were measured.

    Returns:
        The mixture; `idp.tune.mixture_bank` makes a bank of it.

    Raises:
        TaskError: no examples to tune on, or none that are held out.
        BankError: prompts to start from of another shape.
        PromptTooLongError: a prompt and an example do not fit into the model's context.
        ModelError: a loss became NaN or infinite, or the model cannot be trained through.
        OutputError: the checkpoint cannot be written.

    Source: SMoP, EMNLP 2023 (Choi et al.), and its repository.

    Example:
        >>> mixture = tune_mixture(Objective(lm), MixtureConfig(), tuning, held_out, Plan(600))  # doctest: +SKIP
        >>> mixture.best.counts  # doctest: +SKIP
        (61, 80, 75, 40)
    """
    if not examples or not held_out:
        raise TaskError("a mixture needs examples to be tuned on and others that are held out; one list is empty.")
    starts = _starts(objective.lm, config, examples, init, plan.seed)  # (k, l, d)
    run = _Run(objective, config, examples, held_out, plan, starts)
    drive(run, plan, checkpoint, advance, watch)
    return Mixture(*run.best, run.curve, starts)


def _gated(embeddings: Tensor, routing: Routing) -> Tensor:
    """The chosen prompts times their gates: `(k, l, d)` to `(N, l, d)`."""
    # index_select, since gradients of a place that indexing takes several times are added up in any order.
    return routing.gates.float()[:, None, None] * embeddings.index_select(0, routing.chosen)


class _Run:
    """A mixture on its way."""

    def __init__(
        self,
        objective: Objective,
        config: MixtureConfig,
        examples: Sequence[Example],
        held_out: Sequence[Example],
        plan: Plan,
        starts: Tensor,
    ) -> None:
        count, _, width = starts.shape
        self.objective, self.config, self.plan, self.starts = objective, config, plan, starts
        self.examples, self.held_out = list(examples), judges(held_out, plan.seed)
        # One table, as in the authors' code: Adafactor factors its second moments over all rows.
        self.table = starts.reshape(-1, width).clone().requires_grad_()  # (k l, d)
        self.router = _orthogonal(count, width, plan.seed).requires_grad_()  # (k, d)
        self.optimizer = make_optimizer(plan, [self.table, self.router])
        self.best = self.copies()
        self.curve: list[MixturePoint] = []
        self.batch_losses: list[float] = []  # since the last point
        self.step = 0

    @property
    def embeddings(self) -> Tensor:
        """The prompts, `(k, l, d)`."""
        return self.table.view_as(self.starts)

    def copies(self) -> tuple[Tensor, Tensor]:
        """Prompts and router as they are now."""
        return self.embeddings.detach().clone(), self.router.detach().clone()

    @property
    def finished(self) -> bool:
        """Whether the held-out loss has not fallen for as long as the plan is patient."""
        losses = [point.held_out for point in self.curve]
        return bool(losses) and 0 < self.plan.patience <= len(losses) - 1 - losses.index(min(losses))

    @property
    def losses(self) -> tuple[float, float]:
        """Training and held-out loss when they were last measured."""
        return self.curve[-1].train, self.curve[-1].held_out

    def update(self) -> None:
        """Do one step."""
        examples = [self.examples[number] for number in drawn(len(self.examples), self.plan, self.step)]
        routing = self.route(examples, noisy=True)
        prompts = _gated(self.embeddings, routing)  # (B, l, d)
        loss, gradients = self.gradients(examples, prompts.detach())  # (B, l, d)
        if not math.isfinite(loss) or not bool(torch.isfinite(gradients).all()):
            raise diverged("the mixture", self.step, self.plan)
        torch.autograd.backward([prompts, self.config.balance * _imbalance(routing)], [gradients, None])
        if self.plan.clip:
            clip_grad_norm_([self.table, self.router], self.plan.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.batch_losses.append(loss)
        self.step += 1

    def route(self, examples: Sequence[Example], noisy: bool = False) -> Routing:
        """Choose a prompt for each example by what is read of it, as it will be chosen for at inference."""
        lm = self.objective.lm
        features = mean_embeddings(lm, [reading(lm, example) for example in examples])  # (B, d)
        return route(self.router, features, self.noise(len(examples)) if noisy else None)

    def noise(self, rows: int) -> Tensor:
        """Noise of this step, a function of seed and step alone: `(rows, k)`."""
        seed = random.Random(f"noise-{self.plan.seed}-{self.step}").getrandbits(63)
        generator = torch.Generator().manual_seed(seed)
        return self.config.noise * torch.randn(rows, len(self.starts), generator=generator, dtype=torch.float64)

    def gradients(self, examples: Sequence[Example], prompts: Tensor) -> tuple[float, Tensor]:
        """Mean loss of examples, each behind its own prompt, and its gradient with respect to these, `(B, l, d)`."""
        leaves = [prompt.clone().to(self.objective.lm.device).requires_grad_() for prompt in prompts]
        total = 0.0
        for step, losses in self.passes(examples, leaves):
            if not losses.requires_grad:
                raise no_gradient(self.objective.lm)
            torch.autograd.backward(losses.sum() / len(examples))
            step.backward()
            total += float(losses.detach().sum()) / len(examples)
        gradients = [leaf.grad.cpu() for leaf in leaves if leaf.grad is not None]
        if len(gradients) < len(leaves):
            raise no_gradient(self.objective.lm)
        return total, torch.stack(gradients)

    def passes(self, examples: Sequence[Example], prompts: Sequence[Tensor]) -> Iterator[tuple[Step, Tensor]]:
        """Run examples behind a prompt each; no two share one, so every batch is a step of its own."""
        views = self.objective.views(examples)
        for rows in batches_of(views, self.plan.rows_at_once or self.plan.batch_size):
            step = self.objective.behind([prompts[row] for row in rows])
            yield step, step.losses([views[row] for row in rows], range(len(rows)))

    @torch.no_grad()
    def measure(self) -> None:
        """Add a point to the curve, and keep the state if it is the best so far."""
        routing = self.route(self.held_out)
        prompts = list(_gated(self.embeddings, routing))
        held_out = sum(float(losses.sum()) for _, losses in self.passes(self.held_out, prompts)) / len(self.held_out)
        if not math.isfinite(held_out):
            raise diverged("the mixture", self.step, self.plan)
        if all(held_out < point.held_out for point in self.curve):
            self.best = self.copies()
        train = mean_loss(self.batch_losses)
        counts = tuple(torch.bincount(routing.chosen, minlength=len(self.starts)).tolist())
        self.curve.append(MixturePoint(self.step, train, held_out, counts))
        self.batch_losses.clear()
        _LOG.info("step %d: training loss %s, held out %.4f, routed %s", self.step, written(train), held_out, counts)

    def state(self) -> dict[str, Tensor]:
        """All that the rest of the run depends on."""
        points = torch.tensor([point[:3] for point in self.curve], dtype=torch.float64)  # (points, 3)
        tensors = {"step": torch.tensor(self.step), "table": self.table, "router": self.router, "points": points}
        tensors["counts"] = torch.tensor([point.counts for point in self.curve])  # (points, k)
        tensors["losses"] = torch.tensor(self.batch_losses, dtype=torch.float64)
        tensors["best/embeddings"], tensors["best/router"] = self.best
        for name, parameter in (("table", self.table), ("router", self.router)):
            kept = optimizer_tensors(self.optimizer, parameter)
            tensors |= {f"optimizer/{name}/{key}": value for key, value in kept.items()}
        return tensors

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self.step = int(tensors["step"])
        self.batch_losses = tensors["losses"].tolist()
        self.best = tensors["best/embeddings"], tensors["best/router"]
        pairs = zip(tensors["points"].tolist(), tensors["counts"].tolist(), strict=True)
        self.curve = [MixturePoint(int(at), train, held_out, tuple(n)) for (at, train, held_out), n in pairs]
        for name, parameter in (("table", self.table), ("router", self.router)):
            parameter.copy_(tensors[name])
            start = f"optimizer/{name}/"
            kept = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
            if kept:
                self.optimizer.state[parameter] = kept

    def key(self) -> str:
        """A digest of everything the run depends on."""
        return run_key(self.objective, self.plan, (self.config, self.examples, self.held_out), [self.starts])


def _imbalance(routing: Routing) -> Tensor:
    """The load-balance term of `MixtureConfig`."""
    count = routing.probabilities.shape[1]
    shares = torch.bincount(routing.chosen, minlength=count) / len(routing.chosen)  # (k,)
    return count * (shares * routing.probabilities.mean(dim=0)).sum()


def _orthogonal(count: int, width: int, seed: int) -> Tensor:
    """The router to start from, `(k, d)` with orthonormal rows (columns where there are more prompts than columns)."""
    return torch.nn.init.orthogonal_(torch.empty(count, width), generator=torch.Generator().manual_seed(seed))


def _starts(
    lm: LanguageModel, config: MixtureConfig, examples: Sequence[Example], init: Tensor | str, seed: int
) -> Tensor:
    """The prompts to start from, `(k, l, d)` fp32 on the CPU."""
    shape = (config.num_prompts, config.length, lm.hidden_size)
    if isinstance(init, str):
        drawn_anew = [initial(init, lm, examples, config.length, seed + number) for number in range(shape[0])]
        return torch.stack(drawn_anew)
    if tuple(init.shape) not in (shape, shape[1:]):
        raise BankError(f"the mixture starts from shape {tuple(init.shape)}, but {lm.name} needs {shape}.")
    return init.detach().to("cpu", torch.float32).expand(shape).contiguous()
