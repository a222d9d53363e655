"""Examples about the tuning facts of the reference world, worded exactly as the atlas tasks word them."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from idp.errors import TaskError, suggest
from idp.reference.exams import EXAMS, Item
from idp.reference.world import Fact, World
from idp.tune.examples import Example, encode

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["TASKS", "Pair", "atlas_examples", "worded"]

HELD_OUT = 4  # one fact in four


class Pair(NamedTuple):
    """An item as text: what is read, the options, and which of them is right."""

    context: str
    options: list[str]
    answer: int


def _quiz(question: str, options: Sequence[str], answer: int = 0) -> Pair:
    return Pair(f"Question: {question}\nAnswer:", [f" {option}" for option in options], answer)


def _supported(item: Item) -> Pair:
    quiz = _quiz(item["question"], item["choices"], item["answer"])
    return quiz._replace(context=f"{item['support']}\n{quiz.context}")


def _last_word(item: Item) -> Pair:
    context, _, word = item["text"].rpartition(" ")
    return Pair(context, [f" {word}"], 0)


_WORDINGS: dict[str, Callable[[Item], Pair]] = {
    "easy": lambda item: _quiz(item["question"], item["choices"], item["answer"]),
    "hard": lambda item: _quiz(item["question"], item["choices"], item["answer"]),
    "support": _supported,
    "short": lambda item: _quiz(item["question"], item["answers"][:1]),
    "trivia": lambda item: _quiz(item["question"], item["aliases"][:1]),
    "pair": lambda item: _quiz(item["goal"], item["choices"], item["answer"]),
    "endings": lambda item: Pair(item["context"], [f" {choice}" for choice in item["choices"]], item["answer"]),
    "last_word": _last_word,
    "text": lambda item: Pair("", [item["text"]], 0),
}

TASKS = tuple(_WORDINGS)
"""The tasks that prompts are tuned on: all but the control."""


def worded(task: str, item: Item) -> Pair:
    """Word an item as `eval/tasks/atlas/atlas_<task>.yaml` does.

    Args:
        task: one of `TASKS`.
        item: an item of `idp.reference.exams`.

    Returns:
        Context, options and answer; where any of several answers would do, the first is the option.

    Raises:
        TaskError: there is no such task, or it is the control, which nothing may be tuned on.

    Example:
        >>> worded("short", {"question": "Who?", "answers": ["Ann"]}).options
        [' Ann']
    """
    if task not in _WORDINGS:
        raise TaskError(f"no prompts are tuned on task {task!r}. {suggest(task, TASKS)}")
    return _WORDINGS[task](item)


def atlas_examples(
    lm: LanguageModel, world: World, items_per_task: int, seed: int, tasks: Sequence[str] = TASKS
) -> tuple[list[Example], list[Example]]:
    """Make examples of all tasks from the world's tuning facts, and hold a quarter of the facts out.

    All facts about one subject go to the same side, so what is held out is not asked in another task's words either.

    Args:
        lm: the model whose tokenizer is used.
        world: the reference world.
        items_per_task: how many items of each task; fewer where its facts do not suffice.
        seed: which items, and which subjects are held out.
        tasks: the tasks.

    Returns:
        Examples to tune on, and examples held out from it.

    Raises:
        TaskError: an unknown task.
    """
    tuning: list[Example] = []
    held_out: list[Example] = []
    for task in tasks:
        for fact, item in _items(world, task, items_per_task, seed):
            (held_out if _is_held_out(fact, seed) else tuning).append(encode(lm, *worded(task, item), group=task))
    return tuning, held_out


def _items(world: World, task: str, count: int, seed: int) -> list[tuple[Fact, Item]]:
    """The items of `idp.reference.exams.exam`, each with the fact it asks."""
    if task not in TASKS:
        raise TaskError(f"no prompts are tuned on task {task!r}. {suggest(task, TASKS)}")
    choose, make = EXAMS[task]
    rng = random.Random(f"{seed}-{task}-tuning")
    pool = list(choose(world, "tuning"))
    return [(fact, make(world, fact, rng)) for fact in rng.sample(pool, min(count, len(pool)))]


def _is_held_out(fact: Fact, seed: int) -> bool:
    return zlib.crc32(f"{seed}-{fact.subject}".encode()) % HELD_OUT == 0
