"""A prompt compiled to keys and values, and those of a whole batch put into one cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from idp.errors import BankError, ModelError, PromptTooLongError
from idp.run.forward import call_model
from idp.run.guard import broken_numbers

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
        inputs_embeds=embeds[None].clone(),  # (1, n, d); some models scale what they are given in place
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
        raise broken_numbers(lm, f"NaN or infinite values for prompt {name!r}")
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
    places = _places(prefixes)
    lengths = torch.tensor([0 if prefix is None else prefix.length for prefix in prefixes])  # (B,)
    longest = int(lengths.max()) if len(prefixes) else 0
    mask = (torch.arange(longest) >= longest - lengths[:, None]).long()  # (B, N0)
    if not places:
        return cache, mask
    model = places[0][0]
    if any(len(prefix.layers) != len(model.layers) for prefix, _ in places):
        raise BankError("the prefixes of one batch have different numbers of layers: compile them for one model.")
    filled = DynamicCache() if cache is None else cache
    for number in range(len(model.layers)):
        keys, values = (_side_by_side(places, number, part, len(prefixes), longest) for part in (0, 1))
        filled.update(keys, values, number)
    return filled, mask.to(model.layers[0][0].device)


_Places: TypeAlias = list[tuple[Prefix, list[int]]]


def _places(prefixes: Sequence[Prefix | None]) -> _Places:
    """Each different prefix with the rows it stands in front of."""
    places: dict[int, tuple[Prefix, list[int]]] = {}
    for row, prefix in enumerate(prefixes):
        if prefix is not None:
            places.setdefault(id(prefix), (prefix, []))[1].append(row)
    return list(places.values())


def _side_by_side(places: _Places, layer: int, part: int, batch: int, longest: int) -> Tensor:
    """Keys (part 0) or values (part 1) of one layer, zeros where a row has none: `(B, kv_heads, N0, head_dim)`."""
    first, rows = places[0]
    like = first.layers[layer][part]  # (kv_heads, n, head_dim)
    if len(rows) == batch:
        return like.expand(batch, -1, -1, -1)  # the cache makes the copy
    both = like.new_zeros(batch, like.shape[0], longest, like.shape[2])
    for prefix, rows in places:
        for row in rows:  # a slice at a time: indexing by a list takes five times as long
            both[row, :, longest - prefix.length :] = prefix.layers[layer][part]
    return both
