"""What the tests of dynamic models share: a selector without a mind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest

from idp.select.base import Selection, Selector


class ByLength(Selector):
    """Chooses by the length of an input: different rows of a batch get different prompts."""

    name: ClassVar[str] = "by-length"

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        arms = len(self.bank) + 1
        return [Selection(len(ids) % arms - 1, 1.0, (1.0,) * arms) for ids in inputs]


@pytest.fixture(scope="session")
def by_length() -> type[Selector]:
    return ByLength
