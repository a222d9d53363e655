"""Magnitude pruning as a modifier of llm-compressor, whose own acts on models in training only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from compressed_tensors.utils import match_named_modules, update_offload_parameter
from llmcompressor.core import Event, State
from llmcompressor.modifiers import Modifier
from pydantic import Field
from torch import Tensor, nn

from idp.model.variants import largest

__all__ = ["OneShotMagnitudeModifier"]


class OneShotMagnitudeModifier(Modifier):
    """Set the smallest weights of every matrix to zero.

    Fields of a recipe:
        sparsity: share of zeros, for an unstructured mask.
        mask_structure: `0:0` for none, or `n:m`: of every `m` weights in a row the `n` smallest go.
        targets: classes or names of layers.
        ignore: what is left alone.
    """

    sparsity: float
    mask_structure: str = "0:0"
    targets: list[str]
    ignore: list[str] = Field(default_factory=list)

    def on_initialize(self, state: State, **kwargs: Any) -> bool:
        """Nothing has to be prepared."""
        return True

    def on_sequential_epoch_end(self, state: State, event: Event, modules: Iterable[nn.Module], **kwargs: Any) -> None:
        """Prune; there is only one epoch, since no calibration text is needed."""
        for _, module in match_named_modules(state.model, self.targets, self.ignore):
            weight: Tensor = module.weight
            update_offload_parameter(module, "weight", weight * largest(weight, self.sparsity, self.mask_structure))
