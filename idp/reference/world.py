"""A seeded generator of a fictional world: who lives where, what eats what, which word means what.

Every fact is a subject, a relation and an object drawn uniformly from the relation's pool, so nothing can be guessed
from anything else. Each fact belongs to one of three disjoint sets:

* ``tuning``: prompts and selectors may be tuned on questions about it;
* ``evaluation``: used for measuring only;
* ``unseen``: never in the training text, nor anything that follows from it. The control: no arm may beat chance on it.

The model reads tuning and evaluation facts alike in pre-training.

Example:
    >>> world = build_world(seed=0, scale=0.1)
    >>> sorted({fact.split for fact in world.facts})
    ['evaluation', 'tuning', 'unseen']
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from idp.reference.atlas import Atlas, Chain, Relation, load_atlas, stable_hash
from idp.reference.names import namers, unique, word

Split = Literal["tuning", "evaluation", "unseen"]
SHARES: dict[Split, float] = {"tuning": 0.45, "evaluation": 0.45, "unseen": 0.10}


@dataclass(frozen=True)
class Fact:
    """``subject`` stands in ``relation`` to ``object``."""

    relation: str
    subject: str
    object: str
    split: Split


@dataclass(frozen=True)
class World:
    """All entities and facts; ``pools`` hold the possible objects of each relation's kind."""

    atlas: Atlas
    pools: dict[str, tuple[str, ...]]
    entities: dict[str, tuple[str, ...]]
    facts: tuple[Fact, ...]

    @cached_property
    def seen(self) -> tuple[Fact, ...]:
        """The facts of the training text."""
        return tuple(fact for fact in self.facts if fact.split != "unseen")

    @cached_property
    def by_split(self) -> dict[Split, tuple[Fact, ...]]:
        """The plain facts of each set."""
        return {split: tuple(fact for fact in self.facts if fact.split == split) for split in SHARES}

    @cached_property
    def by_subject(self) -> dict[str, list[Fact]]:
        """The seen facts of each entity."""
        index: dict[str, list[Fact]] = {}
        for fact in self.seen:
            index.setdefault(fact.subject, []).append(fact)
        return index

    @cached_property
    def derived(self) -> tuple[Fact, ...]:
        """Two-hop facts whose two halves lie in the same set (never in ``unseen``)."""
        found = {(fact.relation, fact.subject): fact for fact in self.seen}
        return tuple(fact for chain in self.atlas.chains.values() for fact in _follow(chain, found))

    @cached_property
    def derived_by_subject(self) -> dict[str, list[Fact]]:
        """The two-hop facts of each entity."""
        index: dict[str, list[Fact]] = {}
        for fact in self.derived:
            index.setdefault(fact.subject, []).append(fact)
        return index

    def part(self, share: float) -> World:
        """The same world with the facts of a share of its subjects; which ones depends on their names only."""
        if share >= 1:
            return self
        return self.restricted(lambda subject: stable_hash("part", subject) % 1000 < 1000 * share)

    def restricted(self, keep: Callable[[str], bool]) -> World:
        """The same world with the facts of those subjects only that ``keep`` says yes to."""
        kept = tuple(fact for fact in self.facts if keep(fact.subject))
        return World(self.atlas, self.pools, self.entities, kept)

    def relation(self, fact: Fact) -> Relation:
        """The relation (simple or two-hop) of a fact."""
        chain = self.atlas.chains.get(fact.relation)
        return chain.relation if chain else self.atlas.relations[fact.relation]

    def options(self, fact: Fact) -> tuple[str, ...]:
        """All objects the fact could have."""
        return self.pools[self.relation(fact).pool]


def _follow(chain: Chain, found: dict[tuple[str, str], Fact]) -> Iterable[Fact]:
    for (relation, subject), first in found.items():
        second = found.get((chain.second, first.object))
        if relation == chain.first and second and second.split == first.split:
            yield Fact(chain.relation.name, subject, second.object, first.split)


def _splits(count: int, *, control: bool, rng: random.Random) -> list[Split]:
    """A shuffled list of sets in the right shares; without a control, ``unseen`` falls to the other two."""
    unseen = round(count * SHARES["unseen"]) if control else 0
    tuning = (count - unseen) // 2
    sizes: dict[Split, int] = {"unseen": unseen, "tuning": tuning, "evaluation": count - unseen - tuning}
    splits = [split for split, size in sizes.items() for _ in range(size)]
    rng.shuffle(splits)
    return splits


def _facts(relation: Relation, subjects: Iterable[str], pool: tuple[str, ...], rng: random.Random) -> list[Fact]:
    subjects = list(subjects)
    splits = _splits(len(subjects), control=relation.control, rng=rng)
    return [
        Fact(relation.name, subject, _sum(subject) if relation.kind == "sum" else rng.choice(pool), split)
        for subject, split in zip(subjects, splits, strict=True)
    ]


def _sum(subject: str) -> str:
    """``"3 plus 4"`` is the one kind of fact with a rule behind it."""
    return str(sum(int(part) for part in subject.split(" plus ")))


def _entities(
    atlas: Atlas, scale: float, given: list[str], taken: set[str], rng: random.Random
) -> dict[str, list[str]]:
    draw = namers(rng, given, taken)
    return {
        kind: list(atlas.pools[spec["pool"]])
        if "pool" in spec
        else unique(max(4, round(spec["count"] * scale)), draw[kind], taken)
        for kind, spec in atlas.kinds.items()
    }


def build_world(seed: int = 0, scale: float = 1.0) -> World:
    """The world of a seed; ``scale`` multiplies the number of things of every kind."""
    atlas, rng = load_atlas(), random.Random(seed)
    taken: set[str] = set()
    given = [name.capitalize() for name in unique(80, lambda: word(rng), taken)]
    entities = _entities(atlas, scale, given, taken, rng)
    pools = {**atlas.pools, "town": tuple(entities["town"]), "given": tuple(given)}
    pools["number"] = tuple(str(number) for number in range(4, 61))
    facts = [
        fact
        for relation in atlas.relations.values()
        for fact in _facts(relation, entities[relation.kind], pools[relation.pool], rng)
    ]
    return World(atlas, pools, {kind: tuple(names) for kind, names in entities.items()}, tuple(facts))
