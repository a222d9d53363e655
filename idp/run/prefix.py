"""A prompt compiled to keys and values, and those of a whole batch put into one cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import Cache, DynamicCache

from idp.errors import BankError, ModelError, PromptTooLongError
from idp.run.forward import call_model

if TYPE_CHECKING:
    from idp.bank.prompt import Prompt
    from idp.model.loaded import LanguageModel

__all__ = ["Prefix", "assemble", "compile_prefix", "prefill"]


@dataclass(frozen=True, eq=False)
class Prefix:
    """A prompt compiled for one model: what attention of every layer reads of it.

    Keys are stored as the model caches them, that is, after any rotary embedding, for positions `0 .. n-1`.

    Attributes:
        layers: per layer the keys and the values, each `(kv_heads, n, head_dim)`. The shapes are the model's own:
            heads and sizes may differ between layers and between keys and values.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def length(self) -> int:
        """Number of prompt tokens `n`."""
        return self.layers[0][0].shape[-2]

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the keys and values take."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)


def compile_prefix(lm: LanguageModel, prompt: Prompt) -> Prefix:
    """Run a prompt through the model once and keep its keys and values.

    A prompt token attends to earlier prompt tokens only, so what is kept here is exactly what a model run on
    `[prompt; input]` would compute for the prompt, whatever the input (prefix caching; arXiv 2101.00190 trains
    such tensors, here they are computed from embeddings of length `n`).

    Args:
        lm: the model.
        prompt: a text or soft prompt.

    Returns:
        The prefix, on the model's device and in its dtype.

    Raises:
        PromptTooLongError: the prompt alone fills the context of the model.
        ModelError: the model caches something other than keys and values, or they are not finite.

    Example:
        >>> compile_prefix(lm, Prompt("polite", text="Answer politely.")).length  # doctest: +SKIP
        4
    """
    embeds = lm.embed_prompt(prompt)  # (n, d)
    if len(embeds) >= lm.max_length:
        raise PromptTooLongError(
            f"prompt {prompt.name!r} has {len(embeds)} tokens, but the context of {lm.name} holds {lm.max_length}: "
            "no room is left for an input. Choose a shorter prompt."
        )
    return prefill(lm, embeds, prompt.name)


@torch.no_grad()
def prefill(lm: LanguageModel, embeds: Tensor, name: str) -> Prefix:
    """Run embeddings `(n, d)` through the model and keep their keys and values; `name` is for messages."""
    cache = DynamicCache()
    call_model(
        lm,
        inputs_embeds=embeds[None],  # (1, n, d)
        attention_mask=torch.ones(1, len(embeds), dtype=torch.long, device=lm.device),
        position_ids=torch.arange(len(embeds), device=lm.device)[None],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return Prefix(_layers_of(cache, len(embeds), lm, name))


_Layers: TypeAlias = tuple[tuple[Tensor, Tensor], ...]


def _layers_of(cache: DynamicCache, length: int, lm: LanguageModel, name: str) -> _Layers:
    filled = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers]
    layers = tuple((keys[0], values[0]) for keys, values in filled if keys is not None and values is not None)
    if not layers or len(layers) < len(filled) or any(keys.shape[-2] != length for keys, _ in layers):
        raise ModelError(
            f"{lm.name} ({type(lm.model).__name__}) does not cache the keys and values of every layer, so prompts "
            "cannot be put in front of its inputs. Use selector 'none' or a model with attention in all layers."
        )
    if not all(torch.isfinite(tensor).all() for layer in layers for tensor in layer):
        raise ModelError(
            f"{lm.name} computes NaN or infinite values for prompt {name!r}: its weights are damaged or "
            f"overflow in {lm.dtype}. Try --dtype float32."
        )
    return layers


def assemble(prefixes: Sequence[Prefix | None], cache: Cache | None = None) -> tuple[Cache | None, Tensor]:
    """Put the prefixes of one batch side by side, padded on the left to the longest.

    Args:
        prefixes: one per row, None for a row without a prompt.
        cache: an empty cache to fill, of any kind; a growing one is made where none is given.

    Returns:
        The cache, filled with `(B, kv_heads, N0, head_dim)` per layer, or the given one as it was when no row has a
        prompt; and the mask `(B, N0)` of 1 at prompt tokens and 0 at padding, on the device of the prefixes.

    Raises:
        BankError: the prefixes are of different models.
    """
    rows, distinct = _distinct(prefixes)
    lengths = torch.tensor([0 if prefix is None else prefix.length for prefix in prefixes])  # (B,)
    longest = int(lengths.max()) if len(prefixes) else 0
    mask = (torch.arange(longest) >= longest - lengths[:, None]).long()  # (B, N0)
    model = next((prefix for prefix in distinct if prefix is not None), None)
    if model is None:
        return cache, mask
    if any(prefix is not None and len(prefix.layers) != len(model.layers) for prefix in distinct):
        raise BankError("the prefixes of one batch have different numbers of layers: compile them for one model.")
    device = model.layers[0][0].device
    index = torch.tensor(rows, device=device)
    filled = DynamicCache() if cache is None else cache
    for number, (keys, values) in enumerate(model.layers):
        filled.update(
            _stacked(distinct, number, 0, keys, longest).index_select(0, index.to(keys.device)),
            _stacked(distinct, number, 1, values, longest).index_select(0, index.to(values.device)),
            number,
        )
    return filled, mask.to(device)


def _distinct(prefixes: Sequence[Prefix | None]) -> tuple[list[int], list[Prefix | None]]:
    """Number the different prefixes: `prefixes[b] is distinct[rows[b]]`."""
    places: dict[int, int] = {}
    rows = [places.setdefault(id(prefix), len(places)) for prefix in prefixes]
    distinct: list[Prefix | None] = [None] * len(places)
    for row, prefix in zip(rows, prefixes, strict=True):
        distinct[row] = prefix
    return rows, distinct


def _stacked(distinct: list[Prefix | None], layer: int, part: int, like: Tensor, longest: int) -> Tensor:
    """Stack the keys (part 0) or values (part 1) of one layer: `(U, kv_heads, N0, head_dim)`."""
    empty = like[:, :0]  # (kv_heads, 0, head_dim)
    tensors = [empty if prefix is None else prefix.layers[layer][part] for prefix in distinct]
    return torch.stack([pad(tensor, (0, 0, longest - tensor.shape[-2], 0)) for tensor in tensors])
