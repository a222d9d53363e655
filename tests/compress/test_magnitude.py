from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.compress.magnitude import largest


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0, 0.99), st.integers(0, 1000))
def test_the_smallest_go_and_as_many_as_asked_for(rows, width, sparsity, seed):
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    mask = largest(weight, sparsity)
    assert int((~mask).sum()) == int(sparsity * weight.numel())
    if mask.any() and not mask.all():
        assert weight[mask].abs().min() >= weight[~mask].abs().max()


@given(st.integers(1, 5), st.sampled_from(["2:4", "1:4", "4:8"]), st.integers(0, 1000))
def test_of_every_few_in_a_row_the_smallest_go(rows, structure, seed):
    zeros, of = map(int, structure.split(":"))
    weight = torch.randn(rows, 2 * of, generator=torch.Generator().manual_seed(seed))
    parts = largest(weight, 0.0, structure).reshape(-1, of)
    assert ((~parts).sum(dim=1) == zeros).all()


def test_of_equals_those_that_come_first_go():
    assert largest(torch.ones(1, 4), 0.5).tolist() == [[False, False, True, True]]
