"""Sets of tasks that are looked at apart: those a model can do at all, and those that prompts were tuned on or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from idp.evaluate.tasks import EvalTask, packaged
from idp.stats.gap import gap_recovered, gap_size
from idp.stats.pairs import Paired, compare_all
from idp.stats.resampling import Array, Interval, Items, bootstrap_means, interval_of, mean

__all__ = ["FLOOR", "TaskSet", "floor_of", "sets_of"]

FLOOR = 0.05
"""What a model without any knowledge is taken to reach where answers cannot be guessed."""


@dataclass(frozen=True, eq=False)
class TaskSet:
    """Some of the tasks in the mean, with what every arm reaches on them.

    Attributes:
        name: `able` (tasks on which the dense model is above the floor), `able, tuned on` or `able, not tuned on`.
        arms: items of every arm, of these tasks only.
        seed: of resampling.
    """

    name: str
    arms: Mapping[str, Items]
    seed: int

    @property
    def tasks(self) -> list[str]:
        """The tasks."""
        return list(next(iter(self.arms.values())))

    @cached_property
    def means(self) -> dict[str, Interval]:
        """Every arm's mean."""
        return {name: interval_of(value, self._boot[name]) for name, value in self._means.items()}

    @cached_property
    def gap(self) -> Interval:
        """What compression cost."""
        return gap_size(self._means, self._boot)

    @cached_property
    def gaps(self) -> dict[str, Interval]:
        """Share of the gap that every arm closes."""
        return {name: gap_recovered(name, self._means, self._boot) for name in self.arms}

    @cached_property
    def left(self) -> dict[str, Interval]:
        """What is left of the gap to the dense model with the same repair.

        `(dense-static - arm) / (dense - compressed)`. Empty without that arm; NaN where it cannot be told that
        compression cost anything.
        """
        if "dense-static" not in self.arms:
            return {}
        top, gaps = self._boot["dense-static"], self._boot["dense"] - self._boot["compressed"]  # (R,) each
        some = gaps != 0
        undefined = Interval(np.nan, np.nan, np.nan)
        return {
            name: undefined
            if self.gap.touches_zero
            else interval_of(
                (self._means["dense-static"] - value) / (self._means["dense"] - self._means["compressed"]),
                (top - self._boot[name])[some] / gaps[some],
            )
            for name, value in self._means.items()
            if not name.startswith("dense")
        }

    def compared(self, pairs: Sequence[tuple[str, str]]) -> list[Paired]:
        """Compare pairs of arms on these tasks, as one family of tests."""
        return compare_all([pair for pair in pairs if set(pair) <= self.arms.keys()], self.arms, self._boot, self.seed)

    @cached_property
    def _means(self) -> dict[str, float]:
        return {name: mean(items) for name, items in self.arms.items()}

    @cached_property
    def _boot(self) -> dict[str, Array]:
        return bootstrap_means(self.arms, self.seed)


def sets_of(
    arms: Mapping[str, Items], tasks: Sequence[EvalTask], tuned_on: Collection[str], seed: int
) -> list[TaskSet]:
    """Cut the tasks in the mean into sets by what the dense model can do, and by what prompts were tuned on.

    A task belongs to those the dense model can do if the lower end of the 95 % interval of its accuracy there (normal
    approximation) is above the floor: chance where the number of options is fixed, else `FLOOR`. Nothing but the dense
    model is looked at.

    Args:
        arms: items of every arm.
        tasks: all tasks.
        tuned_on: names of tasks, or of what they are parts of, that prompts were tuned on.
        seed: of resampling.

    Returns:
        The sets that have tasks and tell more than the mean over all does; none without a dense and a compressed arm.
    """
    if not {"dense", "compressed"} <= arms.keys():
        return []
    known = {entry.column: entry for entry in tasks if entry.column in arms["dense"]}
    able = [name for name, entry in known.items() if _lower_end(arms["dense"][name]) > floor_of(entry)]
    seen = [name for name in able if {name, known[name].name, _benchmark(name)} & set(tuned_on)]
    wanted = {"able": able, "able, tuned on": seen, "able, not tuned on": [name for name in able if name not in seen]}
    if not seen:
        wanted = {"able": able} if len(able) < len(known) else {}
    return [
        TaskSet(name, {arm: {task: items[task] for task in chosen} for arm, items in arms.items()}, seed)
        for name, chosen in wanted.items()
        if chosen
    ]


def _benchmark(name: str) -> str:
    """The benchmark that a task is: of one that comes with its data, the one that these are drawn from."""
    return packaged()[name].task if name in packaged() else name


def floor_of(entry: EvalTask) -> float:
    """What a model without any knowledge is taken to reach on a task."""
    return FLOOR if entry.chance is None else entry.chance


def _lower_end(items: Array) -> float:
    """Lower end of the 95 % interval of a mean of items `(n,)`."""
    return float(items.mean() - 1.96 * items.std() / np.sqrt(len(items)))
