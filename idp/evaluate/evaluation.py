"""The outcome of an evaluation: every arm's results and what can be concluded from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from idp.evaluate.arms import DENSE_ARMS, ArmResult
from idp.evaluate.settings import Settings
from idp.evaluate.task_sets import TaskSet, sets_of
from idp.evaluate.tasks import EvalTask
from idp.stats.gap import gap_recovered, gap_size
from idp.stats.pairs import Paired, compare_all
from idp.stats.power import detectable
from idp.stats.resampling import Array, Interval, Items, bootstrap_means, interval_of, mean

REFERENCES = ("compressed", "static")
"""Arms that every arm is compared with."""
DEFAULT_ARMS = ("router-state", "router")
"""The first of these that was run is compared with every other arm."""
BOUND = "oracle"


@dataclass(frozen=True)
class Evaluation:
    """All that an evaluation found.

    Attributes:
        settings: what was asked.
        model: the compressed model's name, source, compression and fingerprint.
        bank: the bank's name and prompts.
        tasks: the tasks.
        arms: one result an arm, in the order of the table.
        notes: what a reader should know.
        failed: why arms that are not among them came to no end.
        items: what identifies each task's items.
    """

    settings: Settings
    model: dict[str, object]
    bank: dict[str, object]
    tasks: tuple[EvalTask, ...]
    arms: dict[str, ArmResult]
    notes: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    items: dict[str, str] = field(default_factory=dict)

    @property
    def main_arm(self) -> ArmResult:
        """The arm whose lm-eval results stand at the top level of the results file."""
        repairs = [name for name in self.arms if name not in (*DENSE_ARMS, "compressed", "random", BOUND)]
        wished = (*DEFAULT_ARMS, *reversed([name for name in repairs if name != "static"]), "static", "compressed")
        return next((self.arms[name] for name in wished if name in self.arms), next(reversed(self.arms.values())))

    @cached_property
    def gaps(self) -> dict[str, Interval]:
        """Gap recovered by every arm, with its paired interval; empty without a dense and a compressed arm."""
        if self.gap is None:
            return {}
        if self.gap.high < 0:  # compression helped: nothing was lost that could be given back
            return dict.fromkeys(self._items, Interval(float("nan"), float("nan"), float("nan")))
        return {name: gap_recovered(name, self._means, self._boot) for name in self._items}

    @cached_property
    def gap(self) -> Interval | None:
        """What compression cost, with its paired interval; None without a dense and a compressed arm."""
        if not {"dense", "compressed"} <= self._items.keys():
            return None
        return gap_size(self._means, self._boot)

    @cached_property
    def sets(self) -> list[TaskSet]:
        """Sets of tasks that are looked at apart."""
        sources = self.bank.get("provenance", {})
        tuned_on = sources.get("sources", {}) if isinstance(sources, dict) else {}
        return sets_of(self._items, self.tasks, tuned_on, self.settings.seed)

    @cached_property
    def divergence(self) -> TaskSet | None:
        """Minus the divergence from the dense model, in nats a token, as if it were a metric; None if not measured."""
        measured = {name: arm.divergence for name, arm in self.arms.items() if arm.divergence}
        if "compressed" not in measured:
            return None
        tasks = measured["compressed"].keys()
        whole = {name: rows for name, rows in measured.items() if rows.keys() == tasks}
        dense = {task: np.zeros(len(rows)) for task, rows in measured["compressed"].items()}
        items = {name: {task: -values for task, values in rows.items()} for name, rows in whole.items()}
        return TaskSet("divergence", {"dense": dense, **items}, self.settings.seed)

    @cached_property
    def means(self) -> dict[str, Interval]:
        """Every arm's mean with its interval; of those without a task in the mean none."""
        return {name: interval_of(value, self._boot[name]) for name, value in self._means.items()}

    @cached_property
    def paired(self) -> list[Paired]:
        """Every pair of arms but the bound, as one family of tests."""
        order = [name for name in (*REFERENCES, *self._items) if name in self._items and name != BOUND]
        arms = list(dict.fromkeys(order))
        pairs = [(a, b) for place, b in enumerate(arms) for a in arms[place + 1 :]]
        return compare_all(pairs, self._items, self._boot, self.settings.seed)

    @property
    def headline(self) -> list[Paired]:
        """Of all pairs those with the compressed model or the static prompt, and those of the best router."""
        kept = (*REFERENCES, self._best)
        return [pair for pair in self.paired if pair.b in kept or pair.a == self._best]

    @cached_property
    def detectable(self) -> float | None:
        """Smallest true difference between the best router and static that this many items find with 80 % power."""
        if not self._best or "static" not in self._items:
            return None
        return detectable(self._items[self._best], self._items["static"]) or None  # 0: they answer all alike

    @property
    def _best(self) -> str | None:
        return next((name for name in DEFAULT_ARMS if name in self._items), None)

    @cached_property
    def _means(self) -> dict[str, float]:
        return {name: mean(items) for name, items in self._items.items()}

    @cached_property
    def _items(self) -> dict[str, Items]:
        return {name: arm.items for name, arm in self.arms.items() if arm.items}

    @cached_property
    def _boot(self) -> dict[str, Array]:
        return bootstrap_means(self._items, self.settings.seed) if self._items else {}
