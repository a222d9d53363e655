"""Where the grid lies at the start: between the smallest and the largest weight, or where it fits best."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idp.compress.flexround.rounding import Grid

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationArgs

__all__ = ["fitted", "min_max", "searched"]

_POWER = 2.4
_FRACTIONS = 100


def min_max(weight: Tensor, args: QuantizationArgs) -> Grid:
    """Let the grid reach from the smallest to the largest weight of every group; zero is always on it.

    Args:
        weight: matrix `(out, in)`.
        args: compressed-tensors' own description: bits, symmetric or not, group size.

    Example:
        >>> min_max(torch.tensor([[-1.0, 2.0]]), QuantizationArgs(num_bits=2, symmetric=False)).scale  # doctest: +SKIP
        tensor([[1.]])
    """
    parts = _grouped(weight, args)  # (out, groups, size)
    return _between(parts.amin(dim=2), parts.amax(dim=2), args)


def searched(weight: Tensor, args: QuantizationArgs) -> Grid:
    """Search, for every group, range and zero point with the smallest mean of `|W - W_hat|^2.4`.

    Tried are 100 fractions of the range, and at each, where the grid is asymmetric and the weights lie on both sides
    of zero, all `2^bits` zero points; of one-sided weights only the fractions. The first of equals is kept, and
    min/max is the first: a search never makes rounding to nearest worse by its own measure.

    Args:
        weight: matrix `(out, in)`.
        args: as for `min_max`.

    Source: the initialisation "with clipping" of the repository of arXiv 2306.00317.
    """
    parts = _grouped(weight, args)  # (out, groups, size)
    low, high = parts.amin(dim=2).clamp(max=0), parts.amax(dim=2).clamp(min=0)  # (out, groups)
    best = _between(low, high, args)
    error = _error(parts, best)  # (out, groups)
    two_sided = (low < 0) & (high > 0)
    for step in range(_FRACTIONS):
        fraction = 1 - step / _FRACTIONS
        tried = _between(low * fraction, high * fraction, args)
        best, error = _better(parts, best, error, tried)
        if not args.symmetric:
            for zero in range(best.low, best.high + 1):
                moved = tried._replace(zero=torch.where(two_sided, float(zero), tried.zero))
                best, error = _better(parts, best, error, moved)
    return best


def fitted(weight: Tensor, args: QuantizationArgs, start: str) -> Grid:
    """Make the grid by name: `min_max` or `searched`."""
    return {"min_max": min_max, "searched": searched}[start](weight, args)


def _grouped(weight: Tensor, args: QuantizationArgs) -> Tensor:
    size = args.group_size or weight.shape[1]
    return weight.float().reshape(weight.shape[0], -1, size)  # (out, groups, size)


def _between(low: Tensor, high: Tensor, args: QuantizationArgs) -> Grid:
    """The grid from `low` to `high`, each `(out, groups)`, as compressed-tensors itself would lay it."""
    from compressed_tensors.quantization.utils import calculate_qparams, calculate_range

    scale, zero = calculate_qparams(low, high, args)
    smallest, largest = calculate_range(args, low.device)
    return Grid(scale, zero.to(scale.dtype), int(smallest), int(largest))


def _error(parts: Tensor, grid: Grid) -> Tensor:
    """Mean error of rounding to nearest, `(out, groups)`."""
    scale, zero = grid.scale[..., None], grid.zero[..., None]  # (out, groups, 1)
    rounded = ((parts / scale).round() + zero).clamp(grid.low, grid.high) - zero  # (out, groups, size)
    return (parts - scale * rounded).abs().pow(_POWER).mean(dim=2)


def _better(parts: Tensor, best: Grid, error: Tensor, tried: Grid) -> tuple[Grid, Tensor]:
    """Of two grids the better one for every group, and its error."""
    found = _error(parts, tried)  # (out, groups)
    wins = found < error
    scale, zero = torch.where(wins, tried.scale, best.scale), torch.where(wins, tried.zero, best.zero)
    return best._replace(scale=scale, zero=zero), torch.where(wins, found, error)
