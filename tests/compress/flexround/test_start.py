from __future__ import annotations

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.compress.flexround.rounding import round_to_nearest
from idp.compress.flexround.start import fitted, min_max, searched


def channel(bits, symmetric):
    return QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="channel")


def error(weight, grid):
    return (weight - round_to_nearest(weight, grid)).abs().pow(2.4).mean(dim=1)  # (out,)


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_grid_reaches_from_the_smallest_to_the_largest_weight(symmetric):
    grid = min_max(torch.tensor([[-1.0, 0.5, 2.0]]), channel(2, symmetric))
    if symmetric:
        assert float(grid.scale) == pytest.approx(2.0 / 1.5)
        assert (grid.low, grid.high, float(grid.zero)) == (-2, 1, 0.0)
    else:
        values = [float(grid.scale) * (value - float(grid.zero)) for value in range(grid.low, grid.high + 1)]
        assert values == pytest.approx([-1.0, 0.0, 1.0, 2.0])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    bits=st.integers(2, 4),
    symmetric=st.booleans(),
    shift=st.sampled_from([-3.0, 0.0, 0.4, 3.0]),
)
def test_a_search_is_never_worse_than_min_max(seed, bits, symmetric, shift):
    weight = shift + torch.randn(4, 24, generator=torch.Generator().manual_seed(seed))
    args = channel(bits, symmetric)
    assert (error(weight, searched(weight, args)) <= error(weight, min_max(weight, args))).all()


def test_a_search_leaves_one_large_weight_out():
    weight = torch.cat([torch.linspace(-1, 1, 400), torch.tensor([8.0])])[None]
    args = channel(3, False)
    near, far = searched(weight, args), min_max(weight, args)
    assert float(near.scale) < 0.8 * float(far.scale)
    assert float(error(weight, near)) < 0.8 * float(error(weight, far))


def test_one_sided_weights_keep_zero_on_the_grid():
    weight = torch.linspace(2, 3, 16)[None]
    for make in (min_max, searched):
        grid = make(weight, channel(4, False))
        assert float(grid.zero) == grid.low


@pytest.mark.parametrize("start", ["min_max", "searched"])
def test_groups_are_fitted_one_by_one(start):
    args = QuantizationArgs(num_bits=3, symmetric=False, strategy="group", group_size=4)
    weight = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    whole = fitted(weight, args, start)
    assert whole.scale.shape == (2, 3)
    for group in range(3):
        alone = fitted(weight[:, 4 * group : 4 * group + 4], args, start)
        assert torch.equal(alone.scale[:, 0], whole.scale[:, group])
        assert torch.equal(alone.zero[:, 0], whole.zero[:, group])


def test_an_unknown_start_is_an_error():
    with pytest.raises(KeyError):
        fitted(torch.ones(1, 4), channel(4, True), "best")
