"""Examples about the tuning facts of the reference world, worded exactly as the atlas tasks word them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from idp.errors import TaskError, suggest
from idp.reference.atlas import stable_hash
from idp.reference.exams import Item, exam
from idp.reference.world import World, build_world
from idp.tune.examples import Example, encode
from idp.tune.sources import Data

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["TASKS", "Pair", "atlas_data", "atlas_examples", "worded"]

HELD_OUT = 4  # one subject in four


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
    return _WORDINGS[_known(task)](item)


def atlas_examples(
    lm: LanguageModel, world: World, items_per_task: int, seed: int, tasks: Sequence[str] = TASKS
) -> tuple[list[Example], list[Example]]:
    """Make examples of all tasks from the world's tuning facts, and hold the facts of a quarter of the subjects out.

    Each side is an examination of a world of its own: no fact that is held out is asked, told in a passage or a story,
    or needed for a second hop on the other side. (Held-out questions about facts that running text on the tuning side
    still told made prompts look the better the more they had memorised.)

    Args:
        lm: the model whose tokenizer is used.
        world: the reference world.
        items_per_task: how many items of each task, a quarter of them held out; fewer where the facts do not suffice.
        seed: which items, and which subjects are held out.
        tasks: the tasks.

    Returns:
        Examples to tune on, and examples held out from it.

    Raises:
        TaskError: an unknown task.
    """

    def is_held_out(subject: str) -> bool:
        return stable_hash(str(seed), subject) % HELD_OUT == 0

    held_out = items_per_task // HELD_OUT
    return (
        _examples(
            lm, world.restricted(lambda subject: not is_held_out(subject)), items_per_task - held_out, seed, tasks
        ),
        _examples(lm, world.restricted(is_held_out), held_out, seed, tasks),
    )


def atlas_data(lm: LanguageModel, items_per_task: int, seed: int) -> Data:
    """The reference world as material for a bank; see `atlas_examples`."""
    tuning, held_out = atlas_examples(lm, build_world(0), items_per_task, seed)
    counts = {task: sum(example.group == task for example in [*tuning, *held_out]) for task in TASKS}
    return Data(tuning, held_out, {"sources": counts, "tuning": len(tuning), "held_out": len(held_out)})


def _examples(lm: LanguageModel, world: World, count: int, seed: int, tasks: Sequence[str]) -> list[Example]:
    return [
        encode(lm, *worded(task, item), group=task)
        for task in tasks
        for item in exam(world, _known(task), "tuning", count, seed)
    ]


def _known(task: str) -> str:
    if task not in TASKS:
        raise TaskError(f"no prompts are tuned on task {task!r}. {suggest(task, TASKS)}")
    return task
