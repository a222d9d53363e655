"""What is in a folder of safetensors, told by the headers; values are read where they are asked for only."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idp.errors import ModelError

__all__ = ["FLOATS", "INDEX", "StoredTensor", "StoredWeights"]

FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of numbers that are not packed."""

INDEX = "model.safetensors.index.json"

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
        ModelError: a file is missing, is no safetensors, or is cut off.

    Example:
        >>> len(StoredWeights(Path("idp/reference/models/dense")).tensors)  # doctest: +SKIP
        38
    """

    folder: Path

    @cached_property
    def files(self) -> list[Path]:
        """The files, sorted; none where weights are kept in another form."""
        files = sorted(self.folder.glob("*.safetensors"))
        if missing := sorted(_listed(self.folder) - {file.name for file in files}):
            raise ModelError(f"{self.folder / missing[0]} is missing. Download or save the model again.")
        return files

    @cached_property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Every tensor by its name."""
        return {tensor.name: tensor for file in self.files for tensor in _headers(file)}


def _listed(folder: Path) -> set[str]:
    """The files that the index of a checkpoint in several files names."""
    try:
        names = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no index, or one that loading will complain of
        return set()
    return {str(name) for name in names}


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
