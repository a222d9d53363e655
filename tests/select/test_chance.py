"""Random choices are even, and fixed by the seed and the input alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idp.bank import Prompt, PromptBank
from idp.select import RandomSelector

BANK = PromptBank([Prompt(name, text=name) for name in "abc"])
INPUTS = st.lists(st.lists(st.integers(0, 400), max_size=6), max_size=8)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inputs=INPUTS, seed=st.integers(0, 5))
def test_neither_order_nor_batch_matters(inputs: list[list[int]], seed: int, tiny_lm: Any) -> None:
    selector = RandomSelector(seed=seed).fit(BANK, tiny_lm())
    choices = selector.select_batch(inputs)
    assert selector.select_batch(inputs[::-1]) == choices[::-1]
    assert [selector.select(ids) for ids in inputs] == choices


def test_even_over_prompts_and_none(tiny_lm: Any) -> None:
    selector = RandomSelector().fit(BANK, tiny_lm())
    counts = Counter(choice.index for choice in selector.select_batch([[i, j] for i in range(40) for j in range(50)]))
    assert set(counts) == {-1, 0, 1, 2}
    assert all(400 < count < 600 for count in counts.values())  # 500 expected, standard deviation 19


def test_another_seed_another_draw(tiny_lm: Any) -> None:
    inputs = [[i] for i in range(50)]
    draws = {
        tuple(choice.index for choice in RandomSelector(seed=seed).fit(BANK, tiny_lm()).select_batch(inputs))
        for seed in range(4)
    }
    assert len(draws) == 4
