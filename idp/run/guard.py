"""A model that computes NaN is stopped, instead of writing whatever token NaN happens to choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from idp.errors import ModelError

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["RefuseNaN", "guarded"]


class RefuseNaN(LogitsProcessor):
    """Passes scores through unchanged; NaN among them is an error.

    Args:
        lm: the model, for the message.

    Raises:
        ModelError: a score is NaN; the message names the row.
    """

    def __init__(self, lm: LanguageModel) -> None:
        """Remember whom to name."""
        self._lm = lm

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Look at the scores `(B, V)` of one step."""
        broken = torch.isnan(scores).any(-1)  # (B,)
        if bool(broken.any()):
            raise ModelError(
                f"{self._lm.name} computed NaN for row {int(broken.nonzero()[0])}: its weights are damaged or overflow "
                f"in {self._lm.dtype}. Try --dtype float32."
            )
        return scores


def guarded(lm: LanguageModel, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `generate` with the guard before the caller's own processors."""
    given = arguments.get("logits_processor") or ()
    return {**arguments, "logits_processor": LogitsProcessorList([RefuseNaN(lm), *given])}
