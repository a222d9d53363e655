"""Queries and keys of a model's first decoder layer, seen without touching the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from idp.errors import ModelError, SelectorError
from idp.model.loaded import LanguageModel
from idp.model.view import shallow

__all__ = ["LayerZero", "Projections"]

_IMPLEMENTATION = "idp_layer0"


@dataclass(frozen=True)
class Projections:
    """What the first layer's attention computes its logits from: `softcap(query · key · scaling)`.

    Attributes:
        query: `(B, H, T, d_h)` in fp32, positions (rotary or learned) applied.
        key: `(B, H, T, d_h)` in fp32, positions applied, each key head repeated over its query group.
        scaling: factor on the dot product, `d_h ** -0.5` as a rule.
        softcap: `c` of `c * tanh(logit / c)` where the model has one (Gemma 2).
    """

    query: Tensor
    key: Tensor
    scaling: float
    softcap: float | None = None

    def logits(self, query: Tensor, key: Tensor) -> Tensor:
        """Return attention logits `(..., T, N)` of queries `(..., T, d_h)` and keys `(..., N, d_h)`."""
        logits = query @ key.transpose(-1, -2) * self.scaling  # (..., T, N)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


class LayerZero:
    """A view of a model that ends after its first decoder layer and reports that layer's queries and keys.

    The attention of the view (`idp.model.view.shallow`) is a function of ours, known to `transformers` through its
    public registry. Rotary embeddings, norms of queries and keys, learned positions and grouped
    heads are the model's own code, so every architecture whose attention goes through the registry works.

    A layer-0 query or key depends on its own token and position alone, so padding needs no mask here. A sliding
    window of the layer is not applied: an input sees every prompt, however far away.

    Args:
        lm: the model.

    Raises:
        SelectorError: the architecture has no list of decoder layers.

    Example:
        >>> LayerZero(lm).project(lm.embed(ids), torch.arange(ids.shape[1])[None]).query.shape  # doctest: +SKIP
        torch.Size([1, 32, 7, 128])
    """

    def __init__(self, lm: LanguageModel) -> None:
        """Build the view; no parameter is copied."""
        self._name = lm.name
        try:
            self._decoder = shallow(lm, 1, _IMPLEMENTATION)
        except ModelError as error:
            raise SelectorError(_unsupported(lm.name)) from error

    def project(self, embeddings: Tensor, position_ids: Tensor) -> Projections:
        """Run the first layer's projections.

        Args:
            embeddings: input embeddings `(B, T, d)`, as `LanguageModel.embed` returns them.
            position_ids: `(B, T)` or `(1, T)`.

        Raises:
            SelectorError: the architecture's first layer does not attend through the registry of `transformers`.
        """
        positions = position_ids.to(embeddings.device).expand(embeddings.shape[:2])  # (B, T)
        with torch.no_grad(), _recording() as seen:
            try:
                self._decoder(inputs_embeds=embeddings, position_ids=positions, use_cache=False)
            except SelectorError:
                raise
            except Exception as error:  # a foreign architecture may fail in any way
                if not seen:
                    raise SelectorError(_unsupported(self._name)) from error
        if not seen:
            raise SelectorError(_unsupported(self._name))
        return seen[0]


_RECORD: ContextVar[list[Projections] | None] = ContextVar("idp_layer0", default=None)


@contextmanager
def _recording() -> Iterator[list[Projections]]:
    """Collect what the attention function sees in this thread."""
    seen: list[Projections] = []
    token = _RECORD.set(seen)
    try:
        yield seen
    finally:
        _RECORD.reset(token)


def _observe(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Stand in for attention: note queries and keys, and give back zeros, which nobody reads."""
    scaling = kwargs.get("scaling")
    groups = query.shape[1] // key.shape[1]
    if kwargs.get("s_aux") is not None:
        raise SelectorError("selector 'attention' does not know attention sinks (gpt-oss): use selector 'router'.")
    seen = _RECORD.get()
    if seen is not None:
        seen.append(
            Projections(
                query=query.float(),  # (B, H, T, d_h)
                key=key.float().repeat_interleave(groups, dim=1),  # (B, H, T, d_h)
                scaling=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
                softcap=kwargs.get("softcap"),
            )
        )
    batch, heads, length, _ = query.shape
    return value.new_zeros(batch, length, heads, value.shape[-1]), None


ALL_ATTENTION_FUNCTIONS.register(_IMPLEMENTATION, _observe)


def _unsupported(name: str) -> str:
    return (
        f"selector 'attention' cannot see the first attention layer of {name}: its architecture does not use the "
        "attention functions of transformers. Use selector 'router', which works with every model."
    )
