"""How far each way of choosing is from the best choice: regret, and what choosing costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from idp.errors import TaskError
from idp.select.base import Cost
from idp.stats.gap import gap_recovered
from idp.stats.pairs import Paired, compare
from idp.stats.resampling import Array, Interval, Items, bootstrap_means, mean

__all__ = ["BASE", "BOUND", "Choices", "Measured", "Outcomes", "Regret", "regrets"]

BASE, BOUND = "static", "oracle"
"""What every selector is compared with, and what bounds them all."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What every arm makes of every item.

    Attributes:
        arms: names of the `m` prompts, and last "no prompt".
        losses: task -> `(n, m + 1)`, the probability of being wrong; of every task.
        values: task -> `(n, m + 1)`, the judged metric; of the tasks in the mean.
    """

    arms: tuple[str, ...]
    losses: Mapping[str, Array]
    values: Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Choices:
    """What a selector chose, and what that took.

    Attributes:
        name: of the selector, with its options.
        arms: task -> `(n,)`, the column of the chosen arm.
        cost: what it says that it takes.
        seconds: to choose for one input, many at once.
        alone: to choose for one input alone.
    """

    name: str
    arms: Mapping[str, Array]
    cost: Cost
    seconds: float
    alone: float


@dataclass(frozen=True, eq=False)
class Measured:
    """What came of a way that chooses none of the arms, a mixture of them, and what that took.

    Attributes:
        name: of the way, with its options.
        losses: task -> `(n,)`, the probability of being wrong; of every task.
        values: task -> `(n,)`, the judged metric; of the tasks in the mean.
        cost: what it says that it takes.
        seconds: to choose for one input, many at once.
        alone: to choose for one input alone.
    """

    name: str
    losses: Items
    values: Items
    cost: Cost
    seconds: float
    alone: float


@dataclass(frozen=True)
class Regret:
    """One way's row.

    Attributes:
        name: of the selector or mixture.
        mean: judged metric over the tasks in the mean; None without such tasks.
        loss: mean probability of being wrong over all tasks.
        regret: by how much that is above the oracle's; what is no single arm may be below it.
        covered: share of the distance from static to the oracle.
        gain: judged metric less that of static, paired.
        gain_of_loss: loss of static less this one's, paired: positive is better.
        agreement: share of inputs for which no arm would have had a lower loss; None where no arm was chosen.
        histogram: task -> arm -> share of its items; empty where no arm was chosen.
        cost: what it says that it takes.
        seconds: to choose for one input, many at once.
        alone: to choose for one input alone.
    """

    name: str
    mean: float | None
    loss: float
    regret: Interval
    covered: Interval
    gain: Paired | None
    gain_of_loss: Paired | None
    agreement: float | None
    histogram: Mapping[str, Mapping[str, float]]
    cost: Cost
    seconds: float
    alone: float

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON values; what cannot be stated is null."""
        return {
            "selector": self.name,
            "mean": self.mean,
            "loss": self.loss,
            "regret": _interval(self.regret),
            "covered": _interval(self.covered),
            "gain_over_static": _paired(self.gain),
            "loss_below_static": _paired(self.gain_of_loss),
            "agreement": self.agreement,
            "choices": {task: dict(shares) for task, shares in self.histogram.items()},
            "forwards": self.cost.forwards,
            "parameters": self.cost.parameters,
            "needs_labels": self.cost.labels,
            "sees_answers": self.cost.answers,
            "seconds": self.seconds,
            "seconds_alone": self.alone,
        }


def _interval(value: Interval) -> dict[str, Any] | None:
    if not np.isfinite(value.value):
        return None
    return {"value": value.value, "ci95": [value.low, value.high]}


def _paired(found: Paired | None) -> dict[str, Any] | None:
    return None if found is None else {**(_interval(found.difference) or {}), "p": found.p}


def regrets(outcomes: Outcomes, ways: Sequence[Choices | Measured], seed: int = 0) -> list[Regret]:
    """Judge what selectors chose by what every arm makes of every item, and what came of other ways beside it.

    Args:
        outcomes: of every arm on every item.
        ways: every selector's choices for the same items, or what came of a mixture on them; one called `static` is
            what shares are counted from.
        seed: of the resampling.

    Returns:
        A row for each, in the order given. Tasks weigh the same; intervals are paired over items.

    Raises:
        TaskError: none is called `static`, or one is of other items.

    Example:
        >>> regrets(outcomes, [static, router])[1].covered.value  # doctest: +SKIP
        0.17
    """
    if BASE not in [each.name for each in ways]:
        raise TaskError(f"selectors are compared with {BASE!r}, which has to be among them.")
    losses = {each.name: _items(outcomes.losses, each, "losses") for each in ways}
    losses[BOUND] = {task: table.min(axis=1) for task, table in outcomes.losses.items()}
    values = {each.name: _items(outcomes.values, each, "values") for each in ways} if outcomes.values else {}
    judge = _Judge(outcomes, losses, values, seed)
    return [judge.row(each) for each in ways]


def _items(tables: Mapping[str, Array], way: Choices | Measured, kind: Literal["losses", "values"]) -> Items:
    """What came of a way on each item: task -> `(n,)`."""
    if isinstance(way, Choices):
        return _taken(tables, way.arms)
    found: Items = getattr(way, kind)
    for task, table in tables.items():
        if len(found.get(task, ())) != len(table):
            raise TaskError(f"{kind} of {len(found.get(task, ()))} items of {task}, which has {len(table)}.")
    return {task: found[task] for task in tables}


def _taken(tables: Mapping[str, Array], arms: Mapping[str, Array]) -> Items:
    """The entries of the chosen arms: task -> `(n,)`."""
    for task, table in tables.items():
        if len(arms.get(task, ())) != len(table):
            raise TaskError(f"choices for {len(arms.get(task, ()))} items of {task}, which has {len(table)}.")
    return {task: table[np.arange(len(table)), arms[task].astype(int)] for task, table in tables.items()}


class _Judge:
    """Makes rows from one resampling of the items."""

    def __init__(self, outcomes: Outcomes, losses: dict[str, Items], values: dict[str, Items], seed: int) -> None:
        self.outcomes, self.losses, self.values, self.seed = outcomes, losses, values, seed
        self.loss_boot = bootstrap_means(losses, seed)
        self.value_boot = bootstrap_means(values, seed) if values else {}
        self.means = {name: mean(items) for name, items in losses.items()}

    def row(self, way: Choices | Measured) -> Regret:
        name, arms = way.name, way.arms if isinstance(way, Choices) else None
        other = name != BASE
        return Regret(
            name=name,
            mean=mean(self.values[name]) if self.values else None,
            loss=self.means[name],
            regret=self.above_the_bound(name),
            covered=self.covered(name),
            gain=compare(name, BASE, self.values, self.value_boot, self.seed) if other and self.values else None,
            gain_of_loss=compare(BASE, name, self.losses, self.loss_boot, self.seed) if other else None,
            agreement=None if arms is None else self.agreement(name),
            histogram={} if arms is None else _histogram(arms, self.outcomes.arms),
            cost=way.cost,
            seconds=way.seconds,
            alone=way.alone,
        )

    def above_the_bound(self, name: str) -> Interval:
        low, high = np.percentile(self.loss_boot[name] - self.loss_boot[BOUND], [2.5, 97.5])
        return Interval(self.means[name] - self.means[BOUND], float(low), float(high))

    def covered(self, name: str) -> Interval:
        """The same share as of a gap, with static in the place of the compressed model and the bound in the dense's."""
        ends = {"compressed": BASE, "dense": BOUND, "this": name}
        return gap_recovered(
            "this",
            {end: self.means[arm] for end, arm in ends.items()},
            {end: self.loss_boot[arm] for end, arm in ends.items()},
        )

    def agreement(self, name: str) -> float:
        pairs = [(self.losses[name][task], self.losses[BOUND][task]) for task in self.outcomes.losses]
        return float(np.mean([(mine == best).mean() for mine, best in pairs]))


def _histogram(arms: Mapping[str, Array], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Share of each task's items that each arm was chosen for, the largest first."""
    counts = {task: Counter(chosen.astype(int).tolist()) for task, chosen in arms.items()}
    return {
        task: {names[arm]: times / count.total() for arm, times in count.most_common()}
        for task, count in counts.items()
    }
