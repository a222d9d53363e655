"""Several evaluations side by side: whether they may be compared, and what their seeds do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from idp.errors import TaskError
from idp.report.run import Run
from idp.stats.resampling import Items
from idp.stats.seeds import AcrossSeeds, across_seeds

__all__ = ["SeedRow", "check_same_items", "labels", "over_seeds"]

_BASES = ("compressed", "static")
_MAY_DIFFER = ("seed", "fresh", "resume", "batch_size")


@dataclass(frozen=True)
class SeedRow:
    """Two arms over several seeds.

    Attributes:
        model: the compressed model.
        a: an arm.
        b: the arm it is compared with.
        found: their difference over the seeds.
    """

    model: str
    a: str
    b: str
    found: AcrossSeeds


def check_same_items(runs: Sequence[Run]) -> None:
    """Refuse to compare evaluations of different items.

    Raises:
        TaskError: tasks or items differ; the message names both.
    """
    first = runs[0]
    for run in runs[1:]:
        for task in sorted({*first.idp["items"], *run.idp["items"]}):
            one, other = first.idp["items"].get(task), run.idp["items"].get(task)
            if one != other:
                what = "other items of" if one and other else "no items of"
                lacking = run if one else first
                raise TaskError(
                    f"{first.folder} and {run.folder} cannot be compared: {lacking.folder} has {what} {task}. Evaluate "
                    "both with the same --tasks and --limit."
                )


def labels(runs: Sequence[Run]) -> list[str]:
    """What to call runs: by their models, with seeds and folders as far as that takes to tell them apart."""
    for parts in (lambda run: (), lambda run: (f"seed {run.idp['seed']}",), lambda run: (run.folder.name,)):
        names = [", ".join([run.name, *parts(run)]) for run in runs]
        if len(set(names)) == len(names):
            return names
    return [f"{run.name}, {run.folder}" for run in runs]


def over_seeds(runs: Sequence[Run]) -> list[SeedRow]:
    """Compare every arm with the compressed model and the static prompt over runs that differ in their seeds alone.

    Returns:
        A row a pair, for each model and bank of which there are several runs with seeds of their own.
    """
    subjects: dict[str, list[Run]] = {}
    for run in runs:
        subjects.setdefault(_subject(run), []).append(run)
    return [row for own in subjects.values() if _are_comparable(own) for row in _rows(own)]


def _rows(runs: Sequence[Run]) -> Iterator[SeedRow]:
    common = [arm for arm in runs[0].arms if all(arm in run.arms for run in runs)]
    for base in _BASES:
        for arm in common:
            if base in common and arm not in (base, "compressed"):
                found = across_seeds([_difference(run, arm, base) for run in runs])
                yield SeedRow(runs[0].name, arm, base, found)


def _are_comparable(runs: Sequence[Run]) -> bool:
    seeds = {run.idp["seed"] for run in runs}
    return 1 < len(seeds) == len(runs) and all(_is_complete(run) for run in runs)


def _is_complete(run: Run) -> bool:
    """Whether there is a mean, and items of all its tasks are known, two or more."""
    known = not set(run.in_mean) & set(run.without_items)
    return bool(run.in_mean) and known and all(run.count(task) > 1 for task in run.in_mean)


def _subject(run: Run) -> str:
    """All that a run depends on but its seed."""
    settings = {name: value for name, value in run.idp["settings"].items() if name not in _MAY_DIFFER}
    return repr((run.idp["version"], run.idp["model"], run.idp["bank"]["digest"], sorted(settings.items())))


def _difference(run: Run, a: str, b: str) -> Items:
    one, other = run.values(a), run.values(b)
    return {task: one[task] - other[task] for task in one}
