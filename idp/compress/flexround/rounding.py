"""The rounding that is learned: division by a scale of its own for every weight."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["FlexRound", "Grid", "round_to_nearest"]


class Grid(NamedTuple):
    """The values a weight may take: `scale * (q - zero)` for integers `low <= q <= high`.

    Attributes:
        scale: step of every row and group, `(out, groups)`.
        zero: integer zero point, `(out, groups)`, in the type of `scale`; 0 for a symmetric grid.
        low: smallest integer.
        high: largest integer.
    """

    scale: Tensor
    zero: Tensor
    low: int
    high: int


class _Rounded(torch.autograd.Function):
    """The formula of `FlexRound` and its gradient, which remember nothing but what they are given.

    With `q` what `W / (s exp(d_1 + d_2 + d_3))` is rounded to, and 1 where it is not clipped,

        dW_hat / d(d_2) = - W exp(-(d_2 + d_3)) [low <= q + z <= high]        (d_3: the sum over the row)
        dW_hat / d(d_1) = W_hat + that, summed over the group
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, grid: Grid, step: Tensor, element: Tensor, row: Tensor) -> Tensor:
        ctx.save_for_backward(weight, step, element, row)
        ctx.grid = grid
        integers = _integers(weight, grid, step, element, row).clamp_(grid.low, grid.high)  # (out, groups, size)
        return integers.sub_(grid.zero[..., None]).mul_(grid.scale[..., None] * torch.exp(step))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, step, element, row = ctx.saved_tensors
        integers = _integers(weight, ctx.grid, step, element, row)  # (out, groups, size)
        inside = (integers >= ctx.grid.low) & (integers <= ctx.grid.high)
        rounded = integers.clamp_(ctx.grid.low, ctx.grid.high).sub_(ctx.grid.zero[..., None])
        scaled = rounded.mul_(ctx.grid.scale[..., None] * torch.exp(step)).mul_(gradient).sum(dim=2, keepdim=True)
        own = torch.exp(element + row).reciprocal_().mul_(weight).neg_().mul_(inside).mul_(gradient)
        return None, None, scaled + own.sum(dim=2, keepdim=True), own, own.sum(dim=(1, 2), keepdim=True)


def _integers(weight: Tensor, grid: Grid, step: Tensor, element: Tensor, row: Tensor) -> Tensor:
    """What weights are rounded to, `(out, groups, size)`, zero point included, before it is clipped."""
    divisor = torch.exp(element + (step + row)).mul_(grid.scale[..., None])  # (out, groups, size)
    return torch.div(weight, divisor, out=divisor).round_().add_(grid.zero[..., None])


class FlexRound(nn.Module):
    """Learned rounding of one matrix.

    With `s_1 = s * exp(d_1)` the step of a row's group, and `s * exp(d_1 + d_2 + d_3)` what a weight is divided by,

        W_hat = s_1 * (clip(round(W / (s * exp(d_1 + d_2 + d_3))) + z, low, high) - z)

    The gradient passes through the rounding as if it were not there. A weight may so move by several steps, and the
    larger it is the more it moves. At the start all `d` are 0, which is rounding to nearest, bit for bit.

    Args:
        weight: matrix `(out, in)`; it is kept as it is.
        grid: the values to round to; `in` is a multiple of its number of groups.

    Source: arXiv 2306.00317; `s_1`, `S_2` and `s_3` there are `s * exp(d_1)`, `exp(d_2)` and `exp(d_3)` here.

    Example:
        >>> grid = Grid(torch.tensor([[0.5]]), torch.zeros(1, 1), -16, 15)
        >>> rounding = FlexRound(torch.tensor([[2.6]]), grid)
        >>> rounding().tolist()
        [[2.5]]
        >>> _ = rounding.element.data.fill_(0.6).log_()
        >>> rounding().tolist()
        [[4.5]]
    """

    def __init__(self, weight: Tensor, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        groups = grid.scale.shape[1]
        self.weight = weight.detach().to(grid.scale.dtype).reshape(weight.shape[0], groups, -1)  # (out, groups, size)
        self.step = nn.Parameter(torch.zeros_like(grid.scale)[..., None])  # d_1, (out, groups, 1)
        self.element = nn.Parameter(torch.zeros_like(self.weight))  # d_2, (out, groups, size)
        self.row = nn.Parameter(torch.zeros_like(grid.scale[:, :1])[..., None])  # d_3, (out, 1, 1)

    def forward(self) -> Tensor:
        """Return the rounded matrix `(out, in)`, through which gradients reach what is learned."""
        rounded: Tensor = _Rounded.apply(  # type: ignore[no-untyped-call]
            self.weight, self.grid, self.step, self.element, self.row
        )
        return rounded.flatten(1)

    @torch.no_grad()
    def settled(self) -> tuple[Tensor, Grid]:
        """Return the rounded matrix `(out, in)` and the grid with the learned steps on which it lies."""
        return self().clone(), self.grid._replace(scale=self.grid.scale * torch.exp(self.step[..., 0]))


def round_to_nearest(weight: Tensor, grid: Grid) -> Tensor:
    """Round a matrix `(out, in)` to the nearest values of a grid (RTN)."""
    return FlexRound(weight, grid).settled()[0]
