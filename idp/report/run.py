"""A finished evaluation, as its folder tells it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from idp.errors import OutputError, TaskError
from idp.stats.resampling import Array, Interval

__all__ = ["PLAIN", "SCHEMA", "Item", "Run", "interval_in", "judged", "read_run"]

PLAIN = ("dense", "compressed")
"""Arms without prompts."""

SCHEMA = 3
"""Of `results.json`, under ``idp.schema``; files of the first one do not say it."""


@dataclass(frozen=True)
class Item:
    """What one arm made of one item.

    Attributes:
        id: hash of the item.
        value: its judged metric, larger is better.
        prompt: name of the prompt in front; None for none.
        question: the text it was asked.
        right: the answer that is right.
        given: the answer that was given; empty where an answer is only scored.
    """

    id: str
    value: float
    prompt: str | None
    question: str
    right: str
    given: str


@dataclass(frozen=True)
class Run:
    """An evaluation that is over.

    Attributes:
        folder: where it lies.
        results: the content of its `results.json`.
    """

    folder: Path
    results: Mapping[str, Any]

    @property
    def idp(self) -> Mapping[str, Any]:
        """What `idp` knows beside lm-eval's own results."""
        found: Mapping[str, Any] = self.results["idp"]
        return found

    @property
    def name(self) -> str:
        """The compressed model."""
        return str(self.idp["model"]["name"])

    @property
    def arms(self) -> Mapping[str, Mapping[str, Any]]:
        """Every arm's numbers, in the order of the table."""
        found: Mapping[str, Mapping[str, Any]] = self.idp["arms"]
        return found

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks."""
        return tuple(self.idp["metrics"])

    @property
    def in_mean(self) -> tuple[str, ...]:
        """The tasks whose mean is taken."""
        return tuple(self.idp["in_mean"])

    @property
    def main_arm(self) -> str | None:
        """The arm that the report is about."""
        return self.idp.get("main_arm")

    @cached_property
    def items(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """Arm -> task -> items; a task without scores of its items is left out."""
        read = {
            arm: {task: self._items(task, told["samples"]) for task in self.tasks} for arm, told in self.arms.items()
        }
        return {
            arm: {task: items for task, items in own.items() if self._whole(task, items, read)}
            for arm, own in read.items()
        }

    def _whole(self, task: str, items: Sequence[Item], read: Mapping[str, Mapping[str, Sequence[Item]]]) -> bool:
        """Whether these are all items of a task, in the order in which the other arms have them."""
        whole = [own[task] for own in read.values() if len(own[task]) == self.count(task)]
        return bool(items) and [each.id for each in items] == [each.id for each in next(iter(whole), [])]

    def members(self, task: str) -> Sequence[str]:
        """lm-eval's tasks that a task is made of: itself, or those of a group."""
        found: Sequence[str] = self.idp["groups"].get(task, [task])
        return found

    def higher_is_better(self, task: str) -> bool:
        """Which way a task's judged metric points."""
        return bool(self.results["higher_is_better"][self.members(task)[0]].get(self.idp["metrics"][task], True))

    def count(self, task: str) -> int:
        """How many items of a task were evaluated."""
        return sum(int(self.results["n-samples"][each]["effective"]) for each in self.members(task))

    def values(self, arm: str) -> dict[str, Array]:
        """Task -> judged metric of each item, for the tasks in the mean whose items are known."""
        known = self.items[arm]
        return {task: np.array([each.value for each in known[task]]) for task in self.in_mean if task in known}

    @property
    def without_items(self) -> list[str]:
        """Tasks of which an arm's items are not known."""
        return [task for task in self.tasks if any(task not in found for found in self.items.values())]

    def _items(self, task: str, files: Mapping[str, str]) -> list[Item]:
        """The items of a task, of all its members; none where a file of theirs is missing or of another form."""
        metric, judged_by = self.idp["metrics"][task], self.idp["filters"][task]
        higher = self.higher_is_better(task)
        try:
            texts = [(self.folder / files[each]).read_text(encoding="utf-8") for each in self.members(task)]
            rows = [json.loads(line) for text in texts for line in text.split("\n") if line]
            return [_item(row, metric, higher) for row in rows if row["filter"] == judged_by]
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return []


def read_run(folder: Path) -> Run:
    """Read a finished evaluation.

    Args:
        folder: the output folder of `idp eval`.

    Raises:
        TaskError: there is none, it has not finished, or its results are of another version.

    Example:
        >>> read_run(Path("idp-results/reference")).main_arm  # doctest: +SKIP
        'router-state'
    """
    file = folder / "results.json"
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        begun = (folder / "settings.json").exists()
        how = f"it has not finished: idp eval --resume --output-dir {folder}" if begun else "it holds no results.json"
        raise TaskError(f"there is no evaluation to report in {folder}: {how}.") from error
    except (OSError, ValueError) as error:
        raise OutputError(f"{file} cannot be read: {error}") from error
    _check(file, results)
    return Run(folder, results)


def _check(file: Path, results: Any) -> None:
    if not isinstance(results, dict) or not isinstance(results.get("idp"), dict):
        raise TaskError(f"{file} was not written by idp eval.")
    schema = results["idp"].get("schema", 1)
    if not isinstance(schema, int):
        raise TaskError(f"{file} says a schema that is no number: {schema!r}.")
    if schema < SCHEMA:
        raise TaskError(
            f"{file} is of an older version of idp (schema {schema}, not {SCHEMA}): run the same idp eval again, which "
            "takes the answers that are kept."
        )
    if schema > SCHEMA:
        raise TaskError(f"{file} is of a newer version of idp (schema {schema}, not {SCHEMA}): install that one.")
    arms = results["idp"].get("arms")
    if not isinstance(arms, dict) or results["idp"].get("main_arm") not in arms:
        raise TaskError(f"{file} is damaged: it has no arms, or not the one that it is about.")


def _item(row: Mapping[str, Any], metric: str, higher: bool) -> Item:
    question, options = _asked([[*each] for each in row["arguments"]])
    value = judged(row[metric], higher)
    right, given = _answers(row, options, value == 1, by_length=metric == "acc_norm")
    return Item(row["doc_hash"], value, row["idp_prompt"], question, right, given)


def _asked(arguments: Sequence[Sequence[Any]]) -> tuple[str, list[str]]:
    """The question of an item and its options; where these fill a blank, the blank is shown and what is put there."""
    contexts = [str(each[0]) for each in arguments]
    options = [each[1] for each in arguments if len(each) > 1 and isinstance(each[1], str)]
    if len(set(contexts)) == 1 or len(set(options)) > 1:
        return contexts[0], options
    alike = "".join(letters[0] for letters in takewhile(lambda each: len(set(each)) == 1, zip(*contexts, strict=False)))
    start = alike.rfind(" ") + 1  # of the word that differs
    return f"{alike[:start]}_{options[0]}", [context[start:] for context in contexts]


def judged(stored: Any, higher: bool) -> float:
    """An item's judged metric as a number, larger is better.

    Of a perplexity it is the log-likelihood; of a correlation, which needs all items, whether the item is right.

    Args:
        stored: as it stands in a sample.
        higher: whether more of the metric is better.

    Example:
        >>> judged(0.25, higher=False), judged([-12.5, 7], higher=False), judged([1, 0], higher=True)
        (-0.25, -12.5, 0.0)
    """
    if isinstance(stored, tuple | list):
        first, second = stored
        return float(first == second) if higher else float(first)
    return float(stored) if higher else -float(stored)


def interval_in(stored: Mapping[str, Any]) -> Interval:
    """An interval as results keep it; what could not be computed, which is null there, is NaN.

    Example:
        >>> interval_in({"value": 0.5, "ci95": [None, None]})
        Interval(value=0.5, low=nan, high=nan)
    """
    return Interval(*(math.nan if number is None else float(number) for number in (stored["value"], *stored["ci95"])))


def _answers(row: Mapping[str, Any], options: Sequence[str], is_right: bool, by_length: bool) -> tuple[str, str]:
    """The right answer of an item, and the one that was given."""
    said, target = row["filtered_resps"], row["target"]
    if len(options) < 2:  # free text, or one continuation that was scored
        return str(target).strip(), said[0].strip() if isinstance(said[0], str) else ""
    lengths = [len(option.removeprefix(" ")) if by_length else 1 for option in options]
    given = options[int(np.argmax([float(each[0]) / length for each, length in zip(said, lengths, strict=True)]))]
    return _right(target, options, given if is_right else None, given).strip(), given.strip()


def _right(target: Any, options: Sequence[str], known: str | None, given: str) -> str:
    """The right option: a target is its place or its words; in Winogrande, what stands behind all of them."""
    if isinstance(target, int) and 0 <= target < len(options):
        return options[target]
    if str(target).strip() in {option.strip() for option in options}:
        return str(target)
    others = [option for option in options if option != given]
    return known or (others[0] if len(others) == 1 else str(target))
