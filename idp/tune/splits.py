"""Holding examples out, so that what is tuned on some is judged by others."""

from __future__ import annotations

import random
from collections.abc import Sequence

from idp.errors import TaskError
from idp.tune.examples import Example

__all__ = ["split"]


def split(examples: Sequence[Example], held_out: float = 0.25, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """Hold a part of the examples out, about the same part of every group.

    Examples with the same context are always on the same side, whatever their options and groups; rows of running text,
    whose contexts say nothing, where the whole row is the same.

    Args:
        examples: all of them.
        held_out: which part of them is held out, between 0 and 1.
        seed: which ones.

    Returns:
        Examples to tune on and examples held out, each in the order they came in; neither is empty.

    Raises:
        TaskError: less than two different contexts, or a part that is none.

    Example:
        >>> sums = [Example((1, n), ((n,),), 0, "sums") for n in range(2, 10)]
        >>> [len(side) for side in split(sums)]
        [6, 2]
    """
    if not 0 < held_out < 1:
        raise TaskError(f"cannot hold {held_out:g} of the examples out; give a part between 0 and 1, such as 0.25.")
    parts: dict[tuple[int, ...], list[int]] = {}  # the places of examples that belong together
    for place, example in enumerate(examples):
        parts.setdefault(example.key, []).append(place)
    if len(parts) < 2:
        raise TaskError(
            f"the data is too small to hold a part of it out: {len(examples)} examples with {len(parts)} different "
            "contexts. Give more of it."
        )
    groups: dict[str, list[list[int]]] = {}
    for part in parts.values():
        groups.setdefault(examples[part[0]].group, []).append(part)
    chosen = _drawn(groups, held_out, seed)
    sides = [[x for place, x in enumerate(examples) if (place in chosen) == held] for held in (False, True)]
    return sides[0], sides[1]


def _drawn(groups: dict[str, list[list[int]]], held_out: float, seed: int) -> set[int]:
    """Draw parts of each group until its share is reached; what rounding leaves over goes to the next group."""
    chosen: set[int] = set()
    owed = 0.0
    for name, parts in groups.items():
        random.Random(f"{seed}-{name}").shuffle(parts)
        owed += held_out * sum(map(len, parts))
        for part in parts:
            if len(part) / 2 <= owed:
                chosen.update(part)
                owed -= len(part)
        owed = min(max(owed, -0.5), 0.5)  # a part too large to be drawn is not made up for elsewhere
    smallest = min((part for parts in groups.values() for part in parts), key=len)
    if not chosen:
        return set(smallest)
    total = sum(len(part) for parts in groups.values() for part in parts)
    return chosen.difference(smallest) if len(chosen) == total else chosen
