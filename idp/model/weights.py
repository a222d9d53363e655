"""What is in a folder of safetensors, told by the headers; values are read where they are asked for only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idp.errors import ModelError

__all__ = ["StoredTensor", "StoredWeights"]

_SAMPLED_ROWS = 64
"""Rows of a matrix whose zeros are counted."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a file's header describes it.

    Attributes:
        name: its name in the state dict.
        shape: its shape as stored; a packed one is narrower than what it stands for.
        dtype: as safetensors writes it: `F16`, `BF16`, `I32` ...
        file: where it is.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path

    @property
    def numel(self) -> int:
        """The number of stored values."""
        return math.prod(self.shape)

    def rows(self, count: int = _SAMPLED_ROWS) -> Tensor:
        """Read evenly spaced rows of a matrix, `(min(count, rows), width)`.

        Raises:
            ModelError: the file is damaged.
        """
        step = max(1, self.shape[0] // count)
        with _opened(self.file) as file:
            part = file.get_slice(self.name)
            return torch.stack([part[row] for row in range(0, step * min(count, self.shape[0]), step)])


@dataclass(frozen=True)
class StoredWeights:
    """The weights of a model in a folder.

    Args:
        folder: where `*.safetensors` lie.

    Raises:
        ModelError: a file is no safetensors, or is cut off.

    Example:
        >>> len(StoredWeights(Path("idp/reference/models/dense")).tensors)  # doctest: +SKIP
        38
    """

    folder: Path

    @cached_property
    def files(self) -> list[Path]:
        """The files, sorted; none where weights are kept in another form."""
        return sorted(self.folder.glob("*.safetensors"))

    @cached_property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Every tensor by its name."""
        return {tensor.name: tensor for file in self.files for tensor in _headers(file)}

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(file.stat().st_size for file in self.files)


def _headers(file: Path) -> Iterator[StoredTensor]:
    with _opened(file) as opened:
        for name in opened.keys():  # noqa: SIM118  (it is no mapping)
            part = opened.get_slice(name)
            yield StoredTensor(name, tuple(part.get_shape()), str(part.get_dtype()), file)


def _opened(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{file} is no safetensors file, or was cut off: {error}. Download or save it again."
        ) from error
