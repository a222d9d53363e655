from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from idp.tune.examples import Example

Maker = Callable[..., list[Example]]


@pytest.fixture
def some_examples() -> Maker:
    """Random examples for a vocabulary of 384: choices, single answers and running text."""

    def make(count: int, seed: int = 0, kinds: str = "cat") -> list[Example]:
        rng = random.Random(seed)

        def tokens(low: int, high: int) -> tuple[int, ...]:
            return tuple(rng.randrange(3, 384) for _ in range(rng.randint(low, high)))

        def one(kind: str) -> Example:
            if kind == "t":
                return Example((1,), ((1, *tokens(5, 20)),), 0, "text")
            options = tuple(tokens(1, 4) for _ in range(rng.randint(2, 4) if kind == "c" else 1))
            return Example((1, *tokens(3, 12)), options, rng.randrange(len(options)), kind)

        return [one(kinds[i % len(kinds)]) for i in range(count)]

    return make
