"""Calling a model with the public arguments it has, and the few facts about it that decide how to call it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

if TYPE_CHECKING:
    from torch import nn

    from idp.model.loaded import LanguageModel

__all__ = ["attention_window", "call_model", "takes_4d_masks", "understood"]

_OPTIONAL = ("position_ids", "logits_to_keep")
_WINDOW_FIELDS = ("sliding_window", "attention_chunk_size", "window_size")
_MASKED_ATTENTION = ("eager", "sdpa")  # the others build their own masks or take none


def call_model(lm: LanguageModel, **arguments: Any) -> Tensor:
    """Run the forward pass, leaving out arguments this architecture does not know (ALiBi has no positions).

    Args:
        lm: the model.
        arguments: public arguments of `forward`.

    Returns:
        Logits `(B, K, V)`, `K` as `logits_to_keep` says (all positions when that is absent or 0).
    """
    logits: Tensor = lm.model(**understood(lm.model, arguments)).logits
    return logits[:, -arguments.get("logits_to_keep", 0) :]


def understood(module: nn.Module, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments without those that this module's `forward` has no parameter for."""
    known = _parameters(type(module).forward)
    return {name: value for name, value in arguments.items() if name not in _OPTIONAL or name in known}


@lru_cache
def _parameters(forward: Hashable) -> frozenset[str]:
    return frozenset(inspect.signature(cast("Callable[..., Any]", forward)).parameters)


def attention_window(lm: LanguageModel) -> int | None:
    """How many tokens back the shortest-sighted layer sees, or None when all layers see everything."""
    config = lm.model.config.get_text_config()
    windows = [getattr(config, field, None) for field in _WINDOW_FIELDS]
    return min((window for window in windows if isinstance(window, int) and window > 0), default=None)


def takes_4d_masks(lm: LanguageModel) -> bool:
    """Whether the signature promises that a mask of its own for every query is obeyed.

    It needs explicit positions (ALiBi counts them off the two-dimensional mask) and an attention that reads masks.
    """
    config = lm.model.config.get_text_config()
    return (
        "position_ids" in _parameters(type(lm.model).forward)
        and not getattr(config, "alibi", False)
        and lm.model.config._attn_implementation in _MASKED_ATTENTION
    )
