"""A model that computes NaN is stopped, instead of writing whatever token NaN happens to choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from idp.errors import ModelError

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["RefuseNaN", "broken_numbers", "guarded"]


class RefuseNaN(LogitsProcessor):
    """Passes scores through unchanged; NaN among them is an error.

    Args:
        lm: the model, for the message.
        copies: rows that are run for each row of the caller: beams or samples.

    Raises:
        ModelError: a score is NaN; the message names the row.
    """

    def __init__(self, lm: LanguageModel, copies: int) -> None:
        """Remember whom to name."""
        self._lm, self._copies = lm, copies

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Look at the scores `(B, V)` of one step."""
        broken = torch.isnan(scores).any(-1)  # (B,)
        if bool(broken.any()):
            row = int(broken.nonzero()[0]) // self._copies
            raise broken_numbers(self._lm, f"NaN for row {row}")
        return scores


def broken_numbers(lm: LanguageModel, what: str) -> ModelError:
    """The error of a model that computed something that is no number."""
    return ModelError(
        f"{lm.name} computed {what}: its weights are damaged or overflow in {lm.dtype}. Try --dtype float32."
    )


def guarded(lm: LanguageModel, arguments: dict[str, Any], copies: int) -> dict[str, Any]:
    """The arguments of `generate` with the guard before the caller's own processors."""
    given = arguments.get("logits_processor") or ()
    return {**arguments, "logits_processor": LogitsProcessorList([RefuseNaN(lm, copies), *given])}
