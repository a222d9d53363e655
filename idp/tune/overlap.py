"""Whether something that prompts are tuned on is also what they are measured on."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["COMMON", "RUN", "Overlap", "overlaps"]

RUN = 13
"""So many words in a row do not agree by chance."""

COMMON = 10
"""A run that more different items than these have is a phrase or the words around a question, and says nothing."""

_SHOWN = 3
_WIDTH = 100
_NO_WORDS = re.compile(r"[^\w\s]|_")


@dataclass(frozen=True)
class Overlap:
    """What a check for evaluation items found.

    Attributes:
        checked: how many items were checked.
        found: how many of them overlap.
        examples: a few of those, cut to a line.

    Example:
        >>> items = ["Two and two are four", "Three and three are six"]
        >>> Overlap.of(items, overlaps(items, ["Two and two are four."]))
        Overlap(checked=2, found=1, examples=('Two and two are four',))
    """

    checked: int
    found: int
    examples: tuple[str, ...]

    @classmethod
    def of(cls, items: Sequence[str], found: Sequence[int]) -> Overlap:
        """Sum up what `overlaps` said about `items`."""
        shown = tuple(textwrap.shorten(items[place], _WIDTH, placeholder=" ...") for place in found[:_SHOWN])
        return cls(len(items), len(found), shown)


def overlaps(items: Sequence[str], evaluation: Iterable[str]) -> list[int]:
    """Find tuning items that are evaluation items, or share much of their wording with one.

    Texts are compared word by word, whatever the case, and without anything but letters and digits. An item overlaps
    when a run of 13 of its words stands in an evaluation item, or, where it has fewer, when all of it does. Give
    questions together with their answers: those that differ in nothing else are different items, and a short question
    alone may be a part of many. Runs that more than ten different items have are passed over, so that an instruction
    which stands before every question finds nothing; an item that equals an evaluation item is found in any case.

    Of the evaluation items only the hashes of their runs are kept.

    Args:
        items: what is tuned on.
        evaluation: what is measured on, gone through once.

    Returns:
        Places of the items that overlap, in their order.

    Source: arXiv 2005.14165, appendix C; 13 words throughout as in lm-eval's decontamination.

    Example:
        >>> overlaps(["Two and two are four", "Two and two are five"], ["Is it true? Two and two are FOUR!"])
        [0]
    """
    lengths, shorter = _short(items)
    runs: set[int] = set()
    wholes: set[int] = set()
    for text in evaluation:
        words = _words(text)
        wholes.add(hash(words))
        runs.update(_runs(words, RUN))
        for length in lengths:
            runs.update(shorter.intersection(_runs(words, length)))
    return _found(items, runs, wholes)


def _short(items: Iterable[str]) -> tuple[list[int], set[int]]:
    """The lengths and the hashes of items shorter than a run."""
    short = {words for words in map(_words, items) if 0 < len(words) < RUN}
    return sorted({len(words) for words in short}), {hash(words) for words in short}


def _found(items: Iterable[str], runs: set[int], wholes: set[int]) -> list[int]:
    shared: dict[int, tuple[int, set[int]]] = {}  # the items that have anything in common: which they are, their runs
    for place, words in enumerate(map(_words, items)):
        if not words:
            continue
        common = runs.intersection(_runs(words, min(RUN, len(words))))
        if common or hash(words) in wholes:
            shared[place] = hash(words), common
    # Items that are the same count once: `dict` keeps one of them.
    times = Counter(run for common in dict(shared.values()).values() for run in common)
    return [
        place
        for place, (whole, common) in shared.items()
        if whole in wholes or any(times[run] <= COMMON for run in common)
    ]


def _words(text: str) -> tuple[str, ...]:
    return tuple(_NO_WORDS.sub("", unicodedata.normalize("NFKC", text).casefold()).split())


def _runs(words: tuple[str, ...], length: int) -> Iterator[int]:
    """Hashes of all runs of so many words."""
    return (hash(words[begin : begin + length]) for begin in range(len(words) - length + 1))
