"""What an evaluation is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from idp.evaluate.arms import ARMS


@dataclass(frozen=True)
class Settings:
    """Everything `idp eval` can be told.

    Attributes:
        model: alias, folder or hub id of the compressed model.
        dense: the same of the uncompressed one; None takes the alias's, ``"none"`` goes without.
        bank: folder of a bank; None takes the alias's, or the general text bank.
        tasks: tasks, tags or suites.
        arms: rows of the table.
        limit: items a task.
        batch_size: rows run at once; None finds a size for the device.
        device: ``auto``, ``cpu``, ``cuda`` ...
        dtype: ``auto``, ``float32``, ``bfloat16`` ...
        seed: of everything random.
        output_dir: where results and answers go.
        fit: whether selectors that the bank holds no state of may learn from training splits.
        fit_items: how many training items they learn from.
        allow_mismatch: whether a bank made for another model may be used.
        allow_pickle: whether models that are kept as a pickle may be read.
        trust_remote_code: whether code that comes with a model may be run.
        fresh: whether the answers of earlier runs are deleted first.
    """

    model: str = "reference"
    dense: str | None = None
    bank: str | None = None
    tasks: tuple[str, ...] = ("atlas",)
    arms: tuple[str, ...] = ARMS
    limit: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 0
    output_dir: Path = Path("idp-results")
    fit: bool = True
    fit_items: int = 400
    allow_mismatch: bool = False
    allow_pickle: bool = False
    trust_remote_code: bool = False
    fresh: bool = False
