"""Where the tuning of one prompt stands, in one safetensors file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from idp.files import atomic_write_bytes

__all__ = ["Point", "Progress", "load_progress", "save_progress"]

_LOG = logging.getLogger(__name__)

_TENSORS = ("embedding", "exp_avg", "exp_avg_sq", "best")


class Point(NamedTuple):
    """One point of a tuning curve.

    Attributes:
        step: updates done.
        train: mean loss of the batches since the last point; NaN before the first update.
        held_out: mean loss of the held-out examples.
    """

    step: int
    train: float
    held_out: float


@dataclass
class Progress:
    """All that the rest of a tuning run depends on.

    Attributes:
        embedding: the prompt, `(n, d)` fp32.
        exp_avg: AdamW's first moment, `(n, d)`.
        exp_avg_sq: AdamW's second moment, `(n, d)`.
        best: the prompt with the lowest held-out loss so far, `(n, d)`.
        step: updates done.
        train_sum: sum of the training losses since the last point of the curve.
        train_count: how many they are.
        curve: the points so far.
    """

    embedding: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    best: Tensor
    step: int = 0
    train_sum: float = 0.0
    train_count: int = 0
    curve: list[Point] = field(default_factory=list)

    @classmethod
    def begin(cls, init: Tensor) -> Progress:
        """Start from a prompt `(n, d)`."""
        start = init.detach().to(device="cpu", dtype=torch.float32, copy=True).contiguous()
        return cls(start, torch.zeros_like(start), torch.zeros_like(start), start.clone())


def save_progress(path: Path, progress: Progress, key: str) -> None:
    """Write a checkpoint whole or not at all.

    Args:
        path: the file.
        progress: where the run stands.
        key: what identifies the run; only a run with the same key continues from this file.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {name: getattr(progress, name).detach().cpu().contiguous() for name in _TENSORS}
    tensors["counters"] = torch.tensor([progress.step, progress.train_sum, progress.train_count], dtype=torch.float64)
    tensors["curve"] = torch.tensor(progress.curve, dtype=torch.float64).view(-1, 3)  # (points, 3)
    atomic_write_bytes(path, save(tensors, metadata={"format": "idp-tune", "key": key}))


def load_progress(path: Path, key: str) -> Progress | None:
    """Read a checkpoint, if there is one of the run `key`; another run's, or a broken one, is passed over.

    Args:
        path: the file.
        key: what identifies the run.

    Returns:
        Where the run stands, or None to begin anew.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("key")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if found == key:
            return _progress(tensors)
        _LOG.warning("%s is the checkpoint of another tuning run; beginning anew.", path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        _LOG.warning("cannot continue from %s (%s); beginning anew.", path, error)
    return None


def _progress(tensors: dict[str, Tensor]) -> Progress:
    step, train_sum, train_count = tensors["counters"].tolist()
    return Progress(
        embedding=tensors["embedding"],
        exp_avg=tensors["exp_avg"],
        exp_avg_sq=tensors["exp_avg_sq"],
        best=tensors["best"],
        step=int(step),
        train_sum=train_sum,
        train_count=int(train_count),
        curve=_points(tensors["curve"].tolist()),
    )


def _points(rows: Sequence[Sequence[float]]) -> list[Point]:
    return [Point(int(step), train, held_out) for step, train, held_out in rows]
