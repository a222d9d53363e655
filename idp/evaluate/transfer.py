"""What a bank is worth on other models than its own: other levels and methods of compression, or other checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from idp.bank.bank import PromptBank
from idp.errors import TaskError
from idp.evaluate.evaluation import Evaluation
from idp.evaluate.run import evaluate
from idp.evaluate.settings import Settings
from idp.files import atomic_write_text, file_name, json_text
from idp.observer import Observer, Silent
from idp.stats.pairs import Paired
from idp.stats.resampling import Interval

__all__ = ["ARMS", "Transferred", "transfer", "write_transfer"]

ARMS = ("dense", "compressed", "static", "router", "router-state")
"""What is run on every model unless told otherwise."""

_BASE = "compressed"


@dataclass(frozen=True)
class Transferred:
    """One arm on one model.

    Attributes:
        model: the model's name.
        own: whether the bank was made for this model.
        arm: the way of choosing a prompt.
        mean: mean over the accuracy-type tasks, None where there are none.
        gap: share of the gap to the dense model that is recovered, None where there is none to recover.
        gain: difference from the model without a prompt, paired; None for that arm itself.
    """

    model: str
    own: bool
    arm: str
    mean: float | None
    gap: Interval | None
    gain: Paired | None

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON values."""
        gap = None if self.gap is None else {"value": self.gap.value, "ci95": [self.gap.low, self.gap.high]}
        gain = None
        if self.gain is not None:
            found = self.gain.difference
            gain = {"value": found.value, "ci95": [found.low, found.high], "p": self.gain.p}
        return {"model": self.model, "own": self.own, "arm": self.arm, "mean": self.mean, "gap": gap, "gain": gain}


def transfer(settings: Settings, models: Sequence[str], observer: Observer | None = None) -> list[Transferred]:
    """Evaluate one bank on several models of the same width and tokenizer.

    The selectors are those that the bank was fitted with on its own model. Every model's evaluation is kept in a folder
    of its own, so an interrupted study goes on where it stopped.

    Args:
        settings: bank, tasks, arms and the rest; `model` is replaced and mismatches are allowed. `dense` holds for all
            models; None takes each alias's.
        models: aliases, folders or hub ids.
        observer: is told of progress.

    Returns:
        A row an arm and model.

    Raises:
        TaskError: no bank or no models.
        ModelError: an unknown model, or a dense one that was asked for and cannot be loaded.
        BankError: the bank's soft prompts are of another width than a model.

    Example:
        >>> transfer(Settings(bank="tuned/sparse", arms=ARMS), ["reference", "reference-gptq"])  # doctest: +SKIP
    """
    if settings.bank is None or not models:
        raise TaskError("name a bank, and one or more models to try it on.")
    bank = PromptBank.load(settings.bank)
    rows: list[Transferred] = []
    for model in dict.fromkeys(models):
        folder = settings.output_dir / file_name(model)
        own = replace(settings, model=model, output_dir=folder, allow_mismatch=True, fit=False)
        rows += _rows(evaluate(own, observer or Silent()), bank)
    return rows


def _rows(evaluation: Evaluation, bank: PromptBank) -> list[Transferred]:
    fingerprint = None if bank.fingerprint is None else bank.fingerprint.to_dict()
    gains = {pair.a: pair for pair in evaluation.paired if pair.b == _BASE}
    return [
        Transferred(
            str(evaluation.model["name"]),
            evaluation.model["fingerprint"] == fingerprint,
            name,
            arm.mean,
            _known(evaluation.gaps.get(name)),
            gains.get(name),
        )
        for name, arm in evaluation.arms.items()
    ]


def _known(gap: Interval | None) -> Interval | None:
    """A gap that can be stated: there is none where the dense model is no better."""
    return gap if gap is not None and all(math.isfinite(value) for value in (gap.value, gap.low, gap.high)) else None


def write_transfer(rows: Sequence[Transferred], folder: Path) -> Path:
    """Write the rows as `transfer.json` into a folder.

    Raises:
        OutputError: the file cannot be written.
    """
    path = folder / "transfer.json"
    atomic_write_text(path, json_text([row.to_dict() for row in rows]))
    return path
