"""The matrices of a layer, whatever they are packed in: a linear module is what it does to the identity."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["Matrix", "kinds_of", "matrices"]

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # 8-bit floats need a scale beside them
_COLUMNS = 1024
"""Inputs that are read off a matrix at once."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """A linear map, or a parameter of two or more dimensions that belongs to none (experts are often kept so).

    Attributes:
        source: the linear module, or the parameter.
        shape: `(out, in)`, or the parameter's own.
    """

    source: nn.Module | Tensor
    shape: tuple[int, ...]

    def pieces(self, device: torch.device, dtype: torch.dtype) -> Iterator[Tensor]:
        """Read the matrix a piece at a time, in float32: two of one shape are cut alike.

        Of a linear module `f` with packed weights the piece of inputs `a..b` is `f(I[a:b])ᵀ − f(0)ᵀ`, so it holds
        whatever the module does, adapters and the rounding of its kernel included.

        Args:
            device: of the model's activations.
            dtype: of the model's activations, in which a packed module is asked.

        Yields:
            `(out, at most 1,024)`; of a parameter slices along its first dimension.
        """
        if isinstance(self.source, Tensor):
            yield from (part.detach().float() for part in torch.split(self.source, _slices(self.shape)))
            return
        plain, width = _plain_weight(self.source, self.shape), self.shape[1]  # (out, in)
        for start in range(0, width, _COLUMNS):
            columns = range(start, min(start + _COLUMNS, width))
            if plain is None:
                yield _applied(self.source, _unit_rows(columns, width, device, dtype))
            else:
                yield plain[:, columns.start : columns.stop].float()


def _slices(shape: tuple[int, ...]) -> int:
    """How many slices along the first dimension hold some million values."""
    return max(1, (1 << 22) // max(1, torch.Size(shape[1:]).numel()))


def _plain_weight(module: nn.Module, shape: tuple[int, ...]) -> Tensor | None:
    """The weight `(out, in)` of a module that is a plain linear one; None where only applying it tells the matrix."""
    weight = getattr(module, "weight", None)
    # Subclasses of modules and tensors may do more than multiply: adapters, packed tensors, parametrisations.
    if not isinstance(weight, Tensor) or type(weight) not in (Tensor, nn.Parameter) or weight.dtype not in _FLOATS:
        return None
    if _is_transposed(module):
        return weight.detach().T
    return weight.detach() if type(module) is nn.Linear and tuple(weight.shape) == shape else None


def _unit_rows(columns: range, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The unit vectors of some inputs, and a row of zeros at the end: `(len(columns) + 1, width)`."""
    rows = torch.zeros(len(columns) + 1, width, device=device, dtype=dtype)
    rows[range(len(columns)), columns] = 1
    return rows


@torch.no_grad()
def _applied(module: nn.Module, rows: Tensor) -> Tensor:
    """What a linear module does to unit vectors: `(out, n)` of `(n + 1, in)`, the last of which is zero."""
    outputs: Tensor = module(rows).float()  # (n + 1, out)
    return (outputs[:-1] - outputs[-1]).T


def matrices(layer: nn.Module) -> dict[str, Matrix]:
    """Find all matrices of a module, by their names in it.

    Everything that says how many features it takes and gives is a linear module, and is not looked into. What is left
    over are parameters with two or more dimensions.

    Example:
        >>> list(matrices(nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2))))
        ['0']
    """
    found: dict[str, Matrix] = {}
    _walk(layer, "", found)
    return found


def _walk(module: nn.Module, name: str, found: dict[str, Matrix]) -> None:
    shape = _linear_shape(module)
    if shape is not None:
        found[name] = Matrix(module, shape)
        return
    inside = f"{name}." if name else ""
    for key, parameter in module.named_parameters(recurse=False):
        if parameter.ndim >= 2:
            found[inside + key] = Matrix(parameter, tuple(parameter.shape))
    for key, child in module.named_children():
        _walk(child, inside + key, found)


def _linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """Shape `(out, in)` of what a module multiplies with; None where it is not linear."""
    if _is_transposed(module):
        width, height = cast("Tensor", module.weight).shape  # (in, out)
        return height, width
    outputs, inputs = getattr(module, "out_features", None), getattr(module, "in_features", None)
    return (outputs, inputs) if isinstance(outputs, int) and isinstance(inputs, int) else None


def _is_transposed(module: nn.Module) -> bool:
    """Whether this is GPT-2's kind of linear module, which keeps its weight as `(in, out)`."""
    from transformers.pytorch_utils import Conv1D

    return type(module) is Conv1D


def kinds_of(names: list[str]) -> dict[str, str]:
    """Give every matrix of a layer the name of its kind: its last part, with those before it where that is not enough.

    Matrices that differ only by numbers, as those of experts, are of one kind.

    Example:
        >>> kinds_of(["attn.c_proj", "mlp.c_proj", "mlp.experts.0.up", "mlp.experts.1.up"])
        {'attn.c_proj': 'attn.c_proj', 'mlp.c_proj': 'mlp.c_proj', 'mlp.experts.0.up': 'up', 'mlp.experts.1.up': 'up'}
    """
    bare = {name: name.removesuffix(".weight") for name in names}  # a parameter that belongs to no linear module
    whole = {name: re.sub(r"\.?\b\d+\b", "", kind).strip(".") or kind for name, kind in bare.items()}
    lasts = [kind.rpartition(".")[2] for kind in set(whole.values())]
    return {name: last if lasts.count(last := kind.rpartition(".")[2]) == 1 else kind for name, kind in whole.items()}
