"""The world's description: kinds, pools, relations and their wordings, read from ``atlas.yaml``."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


def stable_hash(*parts: str) -> int:
    """A hash that is the same on every machine and in every process."""
    return zlib.crc32("|".join(parts).encode())


@dataclass(frozen=True)
class Relation:
    """One kind of fact and the ways to state, ask and tell it."""

    name: str
    kind: str
    domain: str
    pool: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    scenes: tuple[tuple[str, str], ...] = ()
    control: bool = True


@dataclass(frozen=True)
class Chain:
    """A two-hop relation: the object of ``first`` is the subject of ``second``."""

    relation: Relation
    first: str
    second: str


@dataclass(frozen=True)
class Atlas:
    """All of ``atlas.yaml``, typed."""

    pools: dict[str, tuple[str, ...]]
    kinds: dict[str, dict[str, Any]]
    relations: dict[str, Relation]
    chains: dict[str, Chain]
    goals: dict[str, tuple[str, str]]
    story: dict[str, tuple[str, ...]]


def _relation(entry: dict[str, Any], **more: str) -> Relation:
    entry = {**entry, **more}
    return Relation(
        name=entry["name"],
        kind=entry["kind"],
        domain=entry["domain"],
        pool=entry["pool"],
        statements=tuple(entry["statements"]),
        questions=tuple(entry["questions"]),
        scenes=tuple((setup, ending) for setup, ending in entry.get("scenes", [])),
        control=entry.get("control", True),
    )


def _chain(entry: dict[str, Any], relations: dict[str, Relation]) -> Chain:
    first, second = relations[entry.pop("first")], relations[entry.pop("second")]
    relation = _relation(entry, kind=first.kind, domain=first.domain, pool=second.pool)
    return Chain(relation, first.name, second.name)


@cache
def load_atlas() -> Atlas:
    """Read the description once."""
    data = yaml.safe_load(files("idp.reference").joinpath("atlas.yaml").read_text(encoding="utf-8"))
    relations = {entry["name"]: _relation(entry) for entry in data["relations"]}
    chains = {entry["name"]: _chain(dict(entry), relations) for entry in data["chains"]}
    return Atlas(
        pools={name: tuple(values) for name, values in data["pools"].items()},
        kinds=data["kinds"],
        relations=relations,
        chains=chains,
        goals={name: (goal, solution) for name, (goal, solution) in data["goals"].items()},
        story={name: tuple(lines) for name, lines in data["story"].items()},
    )
