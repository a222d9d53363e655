from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idp.tune.batches import batches_of
from idp.tune.examples import Example


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), count=st.integers(1, 20), rows=st.integers(1, 20))
def test_batches_hold_every_example_once_and_similar_lengths(some_examples, seed, count, rows):
    examples = some_examples(count, seed)
    batches = batches_of(examples, rows)
    assert sorted(i for batch in batches for i in batch) == list(range(count))
    for batch in batches:
        lengths = [examples[i].request.packed_length for i in batch]
        assert len(batch) <= rows
        assert len({examples[i].is_text for i in batch}) == 1
        assert max(lengths) <= 1.4 * min(lengths) + 8


@pytest.mark.parametrize(("tokens", "sizes"), [(48, [4, 4]), (49, [3, 3, 2]), (96, [2] * 4), (500, [1] * 8)])
def test_rows_of_many_tokens_are_fewer(tokens, sizes):
    texts = [Example((1,), ((5,) * tokens,), 0, "text")] * 8
    assert [len(batch) for batch in batches_of(texts, rows=4)] == sizes


def test_no_examples_make_no_batches():
    assert batches_of([], rows=4) == []


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_most_rows_of_a_batch(some_examples, rows):
    same = some_examples(1) * 7
    assert max(map(len, batches_of(same, rows))) == rows
