"""Names for the things of the little world, drawn from syllables with a seeded generator."""

from __future__ import annotations

import random
from collections.abc import Callable

ONSETS = "b br d dr f g gr h k l m n p r s st t tr v w".split()
VOWELS = "a e i o u".split()
CODAS = "ck l ll m n nd r rn s sk t th".split()
SHIP_WORDS = "Merry Silent Northern Golden Restless Faithful Lucky Proud Wandering Early Gentle Brave".split()
BOOK_WORDS = "Tale Song Secret House Garden Book Daughter Winter".split()
RECIPE_WORDS = "pie stew broth pudding cake hash loaf pot".split()

_DRAWS = 10_000
"""How often a name is drawn until there is one that is not taken."""


def syllable(rng: random.Random, *, closed: bool) -> str:
    """One syllable; a closed one ends in consonants."""
    return rng.choice(ONSETS) + rng.choice(VOWELS) + (rng.choice(CODAS) if closed else "")


def word(rng: random.Random) -> str:
    """A made-up word of two syllables, such as ``drivell``."""
    return syllable(rng, closed=False) + syllable(rng, closed=True)


def unique(count: int, make: Callable[[], str], taken: set[str]) -> list[str]:
    """``count`` different names that are not in ``taken``; they are added to it.

    Raises:
        ValueError: there seem to be no more.
    """
    names: list[str] = []
    while len(names) < count:
        name = next((name for name in (make() for _ in range(_DRAWS)) if name not in taken), None)
        if name is None:
            raise ValueError(f"there are no more names like {make()!r} after {len(names)} of {count}.")
        taken.add(name)
        names.append(name)
    return names


def person_namer(rng: random.Random, given: list[str], taken: set[str]) -> Callable[[], str]:
    """Full names: a given name of the pool and one of 300 family names."""
    families = [name.capitalize() for name in unique(300, lambda: word(rng), taken)]
    return lambda: f"{rng.choice(given)} {rng.choice(families)}"


def namers(rng: random.Random, given: list[str], taken: set[str]) -> dict[str, Callable[[], str]]:
    """For every kind of thing, a function that draws one name."""
    return {
        "person": person_namer(rng, given, taken),
        "town": lambda: word(rng).capitalize(),
        "species": lambda: f"the {word(rng)}",
        "gadget": lambda: f"the {word(rng)}",
        "word": lambda: word(rng),
        "recipe": lambda: f"{word(rng)} {rng.choice(RECIPE_WORDS)}",
        "ship": lambda: f"the {rng.choice(SHIP_WORDS)} {word(rng).capitalize()}",
        "book": lambda: f"The {rng.choice(BOOK_WORDS)} of {word(rng).capitalize()}",
        "family": lambda: f"the {word(rng).capitalize()}s",
        "unit": lambda: word(rng),
        "sum": lambda: f"{rng.randint(2, 30)} plus {rng.randint(2, 30)}",
    }
