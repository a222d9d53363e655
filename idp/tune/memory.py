"""Trading time for memory: layers that are computed again on the way back instead of being remembered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from idp.errors import ModelError
from idp.run.forward import call_model

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["recomputed", "require_recomputation"]

_TRIALS = 3
"""Dropout of a tenth is seen in each of several passes."""


@contextmanager
def recomputed(lm: LanguageModel) -> Iterator[None]:
    """Let the layers of a model forget their activations and compute them again in the backward pass.

    transformers does so while a layer is in training mode; only the layers themselves are put into it, their parts stay
    as they are. Afterwards the model is as it was.

    Source: activation checkpointing, arXiv 1604.06174.
    """
    layers = [module for module in lm.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    lm.model.gradient_checkpointing_enable()
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
        lm.model.gradient_checkpointing_disable()
        lm.model.disable_input_require_grads()  # which the other call leaves enabled


def require_recomputation(lm: LanguageModel) -> None:
    """Check by trying that a model computes the same when its layers are recomputed.

    Raises:
        ModelError: it has no such layers, or they switch dropout on.
    """
    if not lm.find_out("recomputes", lambda: _recomputes(lm)):
        raise ModelError(
            f"the activations of {lm.name} ({type(lm.model).__name__}) cannot be computed twice without changing the "
            "result: leave --checkpointing out, and lower --rows-at-once to save memory."
        )


@torch.no_grad()
def _recomputes(lm: LanguageModel) -> bool:
    if not lm.model.supports_gradient_checkpointing:
        return False
    ids = torch.arange(3, 11, device=lm.device)[None] % lm.vocab_size  # (1, T)
    plain = call_model(lm, input_ids=ids, use_cache=False)
    with recomputed(lm):
        return all(torch.equal(call_model(lm, input_ids=ids, use_cache=False), plain) for _ in range(_TRIALS))
