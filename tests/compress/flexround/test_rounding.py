from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.compress.flexround.rounding import FlexRound, Grid, round_to_nearest

WIDE = Grid(torch.tensor([[0.5]]), torch.zeros(1, 1), -128, 127)


def set_element(rounding, value):
    with torch.no_grad():
        rounding.element.copy_(torch.tensor(value).log().expand_as(rounding.element))


def test_one_weight_may_move_by_several_steps():
    rounding = FlexRound(torch.tensor([[2.6]]), WIDE)
    assert rounding().tolist() == [[2.5]]
    set_element(rounding, 0.6)
    assert rounding().tolist() == [[4.5]]


def test_larger_weights_move_more():
    rounding = FlexRound(torch.tensor([[0.70, -0.74, 1.30]]), WIDE)
    assert rounding().tolist() == [[0.5, -0.5, 1.5]]
    set_element(rounding, math.exp(-0.4))
    assert rounding().tolist() == [[1.0, -1.0, 2.0]]


def test_the_step_of_a_row_moves_the_grid_and_the_division_at_once():
    rounding = FlexRound(torch.tensor([[2.6]]), WIDE)
    with torch.no_grad():
        rounding.step.fill_(math.log(1.1))
    weight, grid = rounding.settled()
    assert float(grid.scale) == pytest.approx(0.55)
    assert float(weight) == pytest.approx(0.55 * round(2.6 / 0.55))


def test_the_row_divides_and_does_not_move_the_grid():
    rounding = FlexRound(torch.tensor([[2.6, 1.0]]), WIDE)
    with torch.no_grad():
        rounding.row.fill_(math.log(0.6))
    weight, grid = rounding.settled()
    assert weight.tolist() == [[4.5, 1.5]]
    assert float(grid.scale) == 0.5


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 5),
    groups=st.integers(1, 3),
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
)
def test_at_the_start_it_is_rounding_to_nearest_as_compressed_tensors_does_it(seed, rows, groups, bits, symmetric):
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize

    from idp.compress.flexround.start import min_max

    weight = torch.randn(rows, groups * 8, generator=torch.Generator().manual_seed(seed))
    args = QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="group", group_size=8)
    grid = min_max(weight, args)
    expected = fake_quantize(weight, grid.scale, grid.zero, args)
    torch.testing.assert_close(FlexRound(weight, grid)(), expected, rtol=0, atol=1e-6)
    assert torch.equal(round_to_nearest(weight, grid), FlexRound(weight, grid).settled()[0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), zero=st.integers(-4, 3), bits=st.integers(2, 4))
def test_the_gradient_is_that_of_the_formula(seed, zero, bits):
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator)

    grid = Grid(drawn(3, 2).abs() + 0.1, torch.full((3, 2), float(zero)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    rounding, upstream = FlexRound(drawn(3, 8), grid), drawn(3, 8)
    with torch.no_grad():
        for parameter in rounding.parameters():
            parameter.copy_(0.3 * drawn(*parameter.shape))
    learned = list(rounding.parameters())
    ours = torch.autograd.grad(rounding(), learned, upstream)
    scale, z = grid.scale[..., None], grid.zero[..., None]
    divided = rounding.weight / (scale * torch.exp(rounding.step + rounding.element + rounding.row))
    through = divided + (divided.round() - divided).detach()
    plain = (scale * torch.exp(rounding.step) * ((through + z).clamp(grid.low, grid.high) - z)).flatten(1)
    torch.testing.assert_close(rounding(), plain)
    for mine, theirs in zip(ours, torch.autograd.grad(plain, learned, upstream), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_gradients_pass_through_the_rounding():
    rounding = FlexRound(torch.tensor([[2.6, -1.1]]), WIDE)
    rounding().sum().backward()
    # d W_hat / d log S = - W / S * s, at S = s = 0.5: the larger a weight, the more it moves.
    assert rounding.element.grad.flatten().tolist() == pytest.approx([-2.6, 1.1])
    assert float(rounding.row.grad) == pytest.approx(-2.6 + 1.1)
    # The step also scales the grid: + W_hat.
    assert float(rounding.step.grad) == pytest.approx(-2.6 + 1.1 + 2.5 - 1.0, abs=1e-6)


def test_what_is_clipped_has_no_gradient():
    rounding = FlexRound(torch.tensor([[100.0, 0.2]]), WIDE._replace(high=7, low=-8))
    rounding().sum().backward()
    assert rounding().tolist() == [[3.5, 0.0]]
    assert rounding.element.grad.flatten().tolist() == pytest.approx([0.0, -0.2])


def test_zeros_stay_zeros_on_a_grid_that_is_not_symmetric():
    grid = Grid(torch.tensor([[0.3]]), torch.tensor([[3.0]]), 0, 7)
    rounding = FlexRound(torch.tensor([[0.0, 0.7, -0.5]]), grid)
    set_element(rounding, 0.4)
    assert rounding().tolist()[0][0] == 0.0


def test_groups_have_steps_of_their_own():
    grid = Grid(torch.tensor([[0.5, 1.0]]), torch.zeros(1, 2), -8, 7)
    assert FlexRound(torch.tensor([[0.7, 0.7]]), grid)().tolist() == [[0.5, 1.0]]
