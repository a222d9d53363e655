"""How often the training text told a fact of the reference world."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from itertools import pairwise

from idp.reference.corpus import CURRICULUM, epoch_documents
from idp.reference.world import Fact, World

__all__ = ["counted", "mentions", "tellings"]

_SAMPLED = 3
"""Epochs of each stage of the curriculum that are counted; the others word the same facts differently."""

_WORD = re.compile(r"\w+")


def tellings(world: World, epochs: int, seed: int = 0) -> dict[Fact, float]:
    """Estimate how often the text of a training told every seen fact.

    A fact counts as told where its subject and its object stand in one document. A few epochs of each stage of the
    curriculum are counted and taken for all of that stage.

    Args:
        world: the world.
        epochs: of the training, the last of which may have been cut off.
        seed: of the training text.

    Example:
        >>> from idp.reference.world import build_world
        >>> world = build_world(0, 0.05)
        >>> min(tellings(world, 80).values()) > 0
        True
    """
    told: Counter[Fact] = Counter()
    for first, count in _stages(epochs):
        sample = range(first, first + min(count, _SAMPLED))
        for epoch in sample:
            for fact, number in mentions(world, epoch_documents(world, epoch, seed)).items():
                told[fact] += number * count / len(sample)  # type: ignore[assignment]  # counters may hold fractions
    return {fact: float(told[fact]) for fact in world.seen}


def mentions(world: World, documents: Iterable[str]) -> Counter[Fact]:
    """Count the documents that tell each seen fact."""
    said = {name: _words(name) for fact in world.seen for name in (fact.subject, fact.object)}
    by_word: dict[str, list[str]] = {}
    for subject in world.by_subject:
        by_word.setdefault(said[subject].split()[0], []).append(subject)
    found: Counter[Fact] = Counter()
    for document in documents:
        text = _words(document)
        subjects = [name for word in {*text.split()} & by_word.keys() for name in by_word[word] if said[name] in text]
        found.update(fact for subject in subjects for fact in world.by_subject[subject] if said[fact.object] in text)
    return found


def _words(text: str) -> str:
    """A text as words with a blank around each, so that none is found in part of another; capitals do not count."""
    return f" {' '.join(_WORD.findall(text.lower()))} "


def counted(values: Mapping[Fact, float], parts: int) -> list[tuple[str, Sequence[Fact]]]:
    """Sort facts by how often they were told into parts of about the same size, with what to call these."""
    order = sorted(values, key=lambda fact: (values[fact], astuple(fact)))  # the same for facts told equally often
    edges = [len(order) * part // parts for part in range(parts + 1)]
    found = [order[first:last] for first, last in pairwise(edges) if last > first]
    return [(f"told about {values[part[0]]:.0f}-{values[part[-1]]:.0f} times", part) for part in found]


def _stages(epochs: int) -> list[tuple[int, int]]:
    """First epoch and number of epochs of each stage of a training."""
    stages, first = [], 0
    for count in [*(count for count, _ in CURRICULUM), epochs]:
        if count := min(count, epochs - first):
            stages.append((first, count))
            first += count
    return stages
