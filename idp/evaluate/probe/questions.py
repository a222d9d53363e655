"""The same facts asked with and without the answer to read: of the tuning half, the evaluation half, and never seen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from idp.reference.exams import EXAMS, known_kinds
from idp.reference.world import SHARES, Fact, Split, World
from idp.tune.atlas import worded
from idp.tune.examples import Example, encode

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["BOOKS", "Asked", "Book", "ask_facts"]

Book = Literal["closed", "open"]

BOOKS: dict[Book, str] = {"closed": "easy", "open": "support"}
"""Task of atlas whose wording is used: the question alone, or behind four statements of which one answers it."""


@dataclass(frozen=True)
class Asked:
    """A question about a fact.

    Attributes:
        fact: the fact.
        split: the set it belongs to.
        book: whether its statement can be read (`open`) or not.
        example: the question with four options.
    """

    fact: Fact
    split: Split
    book: Book
    example: Example


def ask_facts(lm: LanguageModel, world: World, per_split: int, seed: int = 0) -> list[Asked]:
    """Ask facts of each of the three sets, closed and open book.

    Args:
        lm: the model whose tokenizer is used.
        world: the reference world.
        per_split: most facts of a set.
        seed: which facts are asked, and the options.

    Returns:
        Two questions a fact, those that fit into the context of the model.

    Example:
        >>> {(each.split, each.book) for each in ask_facts(lm, build_world(), 1)}  # doctest: +SKIP
        {('tuning', 'closed'), ('tuning', 'open'), ('evaluation', 'closed'), ...}
    """
    asked = [
        Asked(fact, split, book, _example(lm, world, fact, task, seed))
        for split in SHARES
        for fact in _chosen(known_kinds(world, split), per_split, f"{seed}-{split}")
        for book, task in BOOKS.items()
    ]
    fitting = {(each.fact, each.book) for each in asked if each.example.request.span <= lm.max_length}
    return [each for each in asked if all((each.fact, book) in fitting for book in BOOKS)]


def _chosen(facts: Sequence[Fact], count: int, seed: str) -> list[Fact]:
    return random.Random(seed).sample(list(facts), min(count, len(facts)))


def _example(lm: LanguageModel, world: World, fact: Fact, task: str, seed: int) -> Example:
    item = EXAMS[task][1](world, fact, random.Random(f"{seed}-{task}-{fact.relation}-{fact.subject}"))
    return encode(lm, *worded(task, item), group=task)
