"""Many prompts from one set of data without labels: rounds of assigning examples to prompts and tuning these."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from idp.bank.prompt import Prompt
from idp.errors import TaskError
from idp.observer import Observer
from idp.tune.examples import Example
from idp.tune.features import Source, features_of
from idp.tune.gate import Gate, balanced
from idp.tune.loop import Job, Point, tune
from idp.tune.losses import kept_losses
from idp.tune.partition import clusters
from idp.tune.plan import Plan

__all__ = ["FEWEST_JUDGES", "JUDGES", "OWN", "UNTUNED", "Parts", "PartsSettings", "Round", "Rounds"]

_LOG = logging.getLogger(__name__)

JUDGES = 3
"""Every third held-out example judges prompts while they are tuned; all of them fit selectors."""

FEWEST_JUDGES = 20
"""Fewer do not tell good prompts from bad ones."""

UNTUNED = -1  # in the table of losses the first static prompt stands before part 0
"""The part of held-out examples whose part has no tuning example: they get the first static prompt."""

OWN = "own part"
"""What held-out examples cost under the prompt of their own part, among the losses of a round."""

_JUDGED = 1500
"""Held-out examples whose losses under every prompt are measured to judge a round."""


@dataclass(frozen=True)
class PartsSettings:
    """How the data is cut.

    Attributes:
        parts: how many, at first; one that nothing is assigned to is dropped.
        rounds: how often prompts are tuned, with a new assignment by measured losses in between.
        balance: how far parts are held towards equal size, 0 to 1 (`idp.tune.gate.balanced`).
        sample: tuning examples whose losses under every prompt are measured for a new assignment.
        features: what examples are told apart by (`idp.tune.features`).
        seed: of clusters and sample.

    Raises:
        TaskError: numbers that make no sense.
    """

    parts: int
    rounds: int
    balance: float
    sample: int
    features: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 <= self.balance <= 1:
            raise TaskError(f"cannot balance parts with strength {self.balance:g}: give 0 to 1.")
        if self.parts < 1 or self.rounds < 1 or self.sample < 1:
            raise TaskError(f"cannot make {self.parts} parts in {self.rounds} rounds on {self.sample} examples.")


@dataclass(frozen=True)
class Round:
    """What one round came to.

    Attributes:
        counts: tuning examples of each part.
        held_out: mean loss of held-out examples without a prompt (`none`), under the static prompt (`static`), under
            the prompt of their own part (`own part`), and under the best prompt of each in hindsight (`oracle`).
    """

    counts: tuple[int, ...]
    held_out: dict[str, float]

    def __str__(self) -> str:
        """One line."""
        losses = ", ".join(f"{name} {loss:.3f}" for name, loss in self.held_out.items())
        return f"{len(self.counts)} parts of {min(self.counts)} to {max(self.counts)} examples; held-out loss: {losses}"


@dataclass(frozen=True, eq=False)
class Parts:
    """Prompts for the parts of the data.

    Attributes:
        prompts: one a part, `(n_i, d)` each.
        tuning: the part of each tuning example.
        held_out: the part of each held-out example, or `UNTUNED`.
        rounds: what each round came to, those too whose prompts were not kept.
        curves: by round and part, such as `round-1/part-3`, the tuning curve.
        history: of each prompt the tuning curves of all rounds.
    """

    prompts: list[Tensor]
    tuning: list[int]
    held_out: list[int]
    rounds: list[Round] = field(default_factory=list)
    curves: dict[str, list[Point]] = field(default_factory=dict)
    history: list[list[list[Point]]] = field(default_factory=list)

    @property
    def counts(self) -> tuple[int, ...]:
        """Tuning examples of each part."""
        return tuple(self.tuning.count(part) for part in range(len(self.prompts)))


@dataclass(frozen=True, eq=False)
class Rounds:
    """Rounds of assigning examples to prompts and tuning these.

    The first parts are clusters of features. After every round but the last the losses of a sample under all prompts
    are measured, a ridge regression tells them from the features (`Gate`), and every example goes to the prompt with
    the lowest expected loss, held towards parts of equal size: assignment by single losses collapsed to one prompt.

    Attributes:
        source: the models, the objective, and the static prompt.
        tuning: what to tune on.
        held_out: what is assigned to parts too; every third example judges prompts and rounds.
        settings: how the data is cut.
        plan: how the prompts are tuned; its steps are shared out among the rounds.
        folder: where checkpoints are kept.
        observer: is told of progress.

    Source: alternating assignment as in mixtures of experts; what collapses is this project's own finding.
    """

    source: Source
    tuning: Sequence[Example]
    held_out: Sequence[Example]
    settings: PartsSettings
    plan: Plan
    folder: Path
    observer: Observer

    def run(self, starts: Sequence[Tensor]) -> Parts:
        """Cut the data into parts and tune a prompt for each.

        Args:
            starts: prompts that parts start from, in turn; of different lengths if lengths are to be mixed.

        Returns:
            The prompts of the round with the lowest held-out loss under the prompt of the own part.

        Raises:
            TaskError: more parts than different examples.
            ModelError: a loss became NaN or infinite.
        """
        settings = self.settings
        self.observer.stage("features of the examples", None)
        features = features_of(self.source, [*self.tuning, *self.held_out], settings.features)  # (N + H, f)
        assigned = clusters(features, settings.parts, settings.seed)  # (N + H,)
        parts = Parts([starts[part % len(starts)] for part in range(settings.parts)], [], [])
        found = []
        for number in range(1, settings.rounds + 1):
            parts = self._tuned(parts, assigned.tolist(), number)
            found.append(parts)
            if number < settings.rounds:
                assigned = self._assigned(parts, features)
        best = min(found, key=lambda those: those.rounds[-1].held_out[OWN])
        if best is not parts:
            self.observer.note(f"the prompts of round {len(best.rounds)} are kept: what followed was no better")
        return replace(best, rounds=parts.rounds, curves=parts.curves)

    def _tuned(self, before: Parts, assigned: list[int], number: int) -> Parts:
        """Tune every prompt on its part, and judge them all."""
        own, others = assigned[: len(self.tuning)], assigned[len(self.tuning) :]
        kept = sorted(set(own))  # a prompt without examples is dropped
        places = {part: place for place, part in enumerate(kept)}
        jobs = [self._job(f"part-{places[part]}", before.prompts[part], own, others[::JUDGES], part) for part in kept]
        plan = replace(self.plan, steps=self.plan.steps // self.settings.rounds)
        self.observer.stage(f"round {number}: {len(jobs)} prompts side by side", len(jobs) * plan.steps)
        path = self.folder / f"round-{number}.safetensors"
        told = self.observer
        tuned = tune(self.source.objective, jobs, plan, checkpoint=path, advance=told.advance, watch=told.losses)
        counts = tuple(len(job.examples) for job in jobs)
        curves = {f"round-{number}/{job.name}": one.curve for job, one in zip(jobs, tuned, strict=True)}
        prompts = [one.embedding for one in tuned]
        assigned = [places.get(part, UNTUNED) for part in assigned]
        held = assigned[len(self.tuning) :]
        judged = Round(counts, self._judged(prompts, held[::JUDGES]))
        self.observer.note(f"round {number}: {judged}")
        _LOG.info("round %d: sizes %s", number, counts)
        earlier = before.history or [[] for _ in before.prompts]
        history = [[*earlier[part], one.curve] for part, one in zip(kept, tuned, strict=True)]
        own = assigned[: len(self.tuning)]
        return Parts(prompts, own, held, [*before.rounds, judged], before.curves | curves, history)

    def _job(self, name: str, start: Tensor, own: list[int], judging: list[int], part: int) -> Job:
        judges = self.held_out[::JUDGES]
        members = [example for example, its in zip(judges, judging, strict=True) if its == part]
        return Job(
            name,
            start,
            [example for example, its in zip(self.tuning, own, strict=True) if its == part],
            members if len(members) >= FEWEST_JUDGES else judges,
        )

    def _assigned(self, parts: Parts, features: Tensor) -> Tensor:
        """Assign all examples by expected losses, `(N + H,)`."""
        count = min(self.settings.sample, len(self.tuning))
        sample = sorted(random.Random(self.settings.seed).sample(range(len(self.tuning)), count))
        losses = self._losses("assigning examples", parts.prompts, [self.tuning[i] for i in sample])
        gate = Gate.fit(features[sample], losses[:, :-1])
        current = torch.tensor([*parts.tuning, *parts.held_out]).clamp_min(0)  # what has no part may stay in any
        return balanced(gate.expected(features), self.settings.balance, current)

    def _judged(self, prompts: Sequence[Tensor], own: list[int]) -> dict[str, float]:
        """Mean losses of held-out examples by way of choosing."""
        places = sorted(random.Random(self.settings.seed).sample(range(len(own)), min(_JUDGED, len(own))))
        judges = self.held_out[::JUDGES]
        examples = [judges[place] for place in places]
        table = self._losses("judging the round", [self.source.static, *prompts], examples)  # (J, k + 2)
        its = table.gather(1, 1 + torch.tensor([own[place] for place in places])[:, None])[:, 0]
        columns = {"none": table[:, -1], "static": table[:, 0], OWN: its, "oracle": table.min(1).values}
        return {name: float(losses.mean()) for name, losses in columns.items()}

    def _losses(self, stage: str, prompts: Sequence[Tensor], examples: Sequence[Example]) -> Tensor:
        named = [Prompt(f"p{number}", embedding=prompt) for number, prompt in enumerate(prompts)]
        self.observer.stage(stage, len(examples) * (len(named) + 1))
        return kept_losses(self.source.objective.lm, named, examples, self.folder, self.observer.advance)
