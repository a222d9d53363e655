"""Queries and keys of one of a model's decoder layers, seen without touching the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from idp.errors import ModelError, SelectorError
from idp.model.loaded import LanguageModel
from idp.model.view import num_layers, shallow
from idp.run.forward import takes_4d_masks

__all__ = ["KeysValues", "LayerView", "Projections"]

_IMPLEMENTATION = "idp_layer_view"

KeysValues: TypeAlias = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of each layer below the one that is seen, `(1, kv_heads, N, d_h)`."""


@dataclass(frozen=True)
class Projections:
    """What a layer's attention computes its logits from: `softcap(query · key · scaling)`.

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


class LayerView:
    """A view of a model that ends after one of its decoder layers and reports that layer's queries and keys.

    The attention of the view's last layer (`idp.model.view.shallow`) is a function of ours, known to `transformers`
    through its public registry. Rotary embeddings, norms of queries and keys, learned positions and grouped heads are
    the model's own code, as are the layers below, so every architecture whose attention goes through the registry
    works.

    Tokens see what they are put behind, and each other causally; padding stands on the right, where nobody looks. A
    sliding window is not applied, here or below: an input sees every prompt, however far away.

    Args:
        lm: the model.
        layer: which layer, 0 to `num_layers(lm) - 1`.

    Raises:
        SelectorError: the model has no such layer, its architecture has no list of decoder layers, or, above layer 0,
            its attention takes no mask of its own for every query.

    Example:
        >>> LayerView(lm).project(lm.embed(ids), torch.arange(ids.shape[1])[None]).query.shape  # doctest: +SKIP
        torch.Size([1, 32, 7, 128])
    """

    def __init__(self, lm: LanguageModel, layer: int = 0) -> None:
        """Build the view; no parameter is copied."""
        if not 0 <= layer < num_layers(lm):
            raise SelectorError(
                f"{lm.name} has {num_layers(lm)} layers, so selector 'attention' has no layer {layer} to look at: "
                f"choose 0 to {num_layers(lm) - 1}."
            )
        if layer and not takes_4d_masks(lm):
            raise SelectorError(
                f"{lm.name} takes no attention mask for each query, so selector 'attention' can look at layer 0 only, "
                f"not {layer}: set attn_implementation to 'sdpa', or use selector 'router' with features=state."
            )
        self.layer = layer
        self._name = lm.name
        try:
            self._decoder = shallow(lm, layer + 1, _IMPLEMENTATION)
        except ModelError as error:
            raise SelectorError(_unsupported(lm.name, layer)) from error

    def project(self, embeddings: Tensor, position_ids: Tensor, behind: KeysValues = ()) -> Projections:
        """Run the layers below, and this layer's projections.

        Args:
            embeddings: input embeddings `(B, T, d)`, as `LanguageModel.embed` returns them.
            position_ids: `(B, T)` or `(1, T)`.
            behind: what else is seen in the layers below; as many layers as `read` gives.

        Raises:
            SelectorError: the architecture's layer does not attend through the registry of `transformers`.
        """
        cache = DynamicCache()
        for number, (keys, values) in enumerate(behind):
            rows = (len(embeddings), -1, -1, -1)
            cache.update(keys.expand(rows), values.expand(rows), number)
        return self._run(embeddings, position_ids, cache)

    def read(self, embedding: Tensor, start: int) -> tuple[Tensor, KeysValues]:
        """Run a prompt that sees only itself.

        Args:
            embedding: `(n, d)`.
            start: position of its first token.

        Returns:
            Its keys in this layer, `(H, n, d_h)`, and those and the values of the layers below, for `behind`.
        """
        cache = DynamicCache()
        seen = self._run(embedding[None], torch.arange(start, start + len(embedding))[None], cache)
        return seen.key[0], tuple(_filled(layer) for layer in cache.layers[: self.layer])

    def _run(self, embeddings: Tensor, position_ids: Tensor, cache: DynamicCache) -> Projections:
        arguments: dict[str, Any] = {"use_cache": False}
        if self.layer:  # a query or key of layer 0 depends on its own token and position alone
            mask = _causal_mask(cache.get_seq_length(), embeddings)
            arguments = {"use_cache": True, "past_key_values": cache, "attention_mask": mask}
        positions = position_ids.to(embeddings.device).expand(embeddings.shape[:2])  # (B, T)
        with torch.no_grad(), _recording() as seen:
            try:
                # A copy, since some models scale what they are given in place.
                self._decoder(inputs_embeds=embeddings.clone(), position_ids=positions, **arguments)
            except (SelectorError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # a foreign architecture may fail in any way
                if not seen:
                    raise SelectorError(_unsupported(self._name, self.layer)) from error
        if not seen:
            raise SelectorError(_unsupported(self._name, self.layer))
        return seen[0]


def _filled(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.keys, layer.values


def _causal_mask(length: int, embeddings: Tensor) -> Tensor:
    """Let tokens `(B, T, d)` see `length` cached ones and each other causally: additive, `(B, 1, T, length + T)`."""
    batch, steps, _ = embeddings.shape
    seen = torch.ones(steps, length + steps, dtype=torch.bool, device=embeddings.device).tril(length)
    mask = torch.zeros(seen.shape, dtype=embeddings.dtype, device=embeddings.device)
    return mask.masked_fill_(~seen, torch.finfo(mask.dtype).min).expand(batch, 1, -1, -1)


_RECORD: ContextVar[list[Projections] | None] = ContextVar("idp_layer_view", default=None)


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


def _unsupported(name: str, layer: int) -> str:
    return (
        f"selector 'attention' cannot see attention layer {layer} of {name}: its architecture does not use the "
        "attention functions of transformers. Use selector 'router', which works with every model."
    )
