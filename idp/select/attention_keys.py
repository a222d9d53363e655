"""The prompts of a bank as one attention layer sees them, computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from idp.model.loaded import LanguageModel
from idp.select.layer_view import KeysValues, LayerView, Projections

__all__ = ["PromptKeys", "prompt_keys"]

_MAX_ROWS = 256
_MAX_LOGITS = 1 << 22
"""Attention logits held at once: 16 MB of fp32, which stay near the processor; larger tensors were slower."""
_MAX_CACHED = 1 << 15
"""Tokens whose keys and values the layers below hold at once, over all rows and layers: 512 MB at width 4,096."""

_SHIFT = 7
_SHIFT_TOLERANCE = 0.03


@dataclass(frozen=True)
class PromptKeys:
    """The keys of all prompts in one layer, and what an input sees of them in the layers below.

    Attributes:
        view: the view of the model that made them.
        keys: `(H, N, d_h)` of the prompts one after another, `N = sum n_i`.
        below: keys and values of all prompts in the layers below; none for layer 0.
        lengths: `n_i` of each prompt.
        starts: position of an input's first token, and the prompts that are judged with it there.
        twins: for each prompt the first that equals it, itself as a rule. Twins get one score, since a sum over the
            same numbers in another place of a matrix may be rounded in another way, which would break their tie.
    """

    view: LayerView
    keys: Tensor
    below: KeysValues
    lengths: tuple[int, ...]
    starts: dict[int, list[int]]
    twins: list[int]

    def project(self, embeddings: Tensor, start: int) -> Projections:
        """Run inputs `(B, T, d)` behind all prompts, their first tokens at position `start`."""
        positions = torch.arange(start, start + embeddings.shape[1])[None]  # (1, T)
        return self.view.project(embeddings, positions, self.below)

    def batches(self, inputs: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Group the rows of inputs that are not empty by length, as many as the memory for them allows."""
        batch: list[int] = []
        for row in sorted((row for row, ids in enumerate(inputs) if len(ids)), key=lambda row: len(inputs[row])):
            if batch and not self._fits(len(batch) + 1, len(inputs[row])):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _fits(self, rows: int, length: int) -> bool:
        heads, num_keys, _ = self.keys.shape
        seen = rows * (num_keys + length)
        return rows <= _MAX_ROWS and seen * heads * length <= _MAX_LOGITS and seen * len(self.below) <= _MAX_CACHED


def prompt_keys(lm: LanguageModel, embeddings: Sequence[Tensor], layer: int = 0) -> PromptKeys:
    """Compute every prompt's keys where the prompt stands: before the input, or at position 0.

    Args:
        lm: the model.
        embeddings: `(n_i, d)` of each prompt; each is run alone, so it sees only itself.
        layer: which layer.

    Raises:
        SelectorError: the model has no such layer, or it cannot be seen.
    """
    view = LayerView(lm, layer)
    lengths = tuple(len(embedding) for embedding in embeddings)
    longest = max(lengths)
    if _shift_invariant(LayerView(lm), embeddings[lengths.index(longest)]):
        offsets = [longest - length for length in lengths]
        starts = {longest: list(range(len(lengths)))}
    else:
        offsets = [0] * len(lengths)
        starts = {n: [i for i, length in enumerate(lengths) if length == n] for n in sorted(set(lengths))}
    read = [view.read(embedding, offset) for embedding, offset in zip(embeddings, offsets, strict=True)]
    twins = [next(i for i, first in enumerate(embeddings) if torch.equal(first, one)) for one in embeddings]
    keys = torch.cat([own for own, _ in read], dim=1)  # (H, N, d_h)
    return PromptKeys(view, keys, _joined([below for _, below in read]), lengths, starts, twins)


def _joined(prompts: Sequence[KeysValues]) -> KeysValues:
    """Put the keys and values of all prompts one after another, layer by layer."""
    return tuple(
        (torch.cat([keys for keys, _ in layer], dim=2), torch.cat([values for _, values in layer], dim=2))
        for layer in zip(*prompts, strict=True)
    )


def _shift_invariant(view: LayerView, embedding: Tensor) -> bool:
    """Measure whether logits depend on relative positions only: rotary ones do, learned ones do not.

    Layer 0 tells it of the whole model, before the rounding of many layers has been added.
    """
    positions = torch.arange(len(embedding))[None]  # (1, n)
    here, there = (view.project(embedding[None], positions + shift) for shift in (0, _SHIFT))
    logits, shifted = here.logits(here.query, here.key), there.logits(there.query, there.key)  # (1, H, n, n)
    return bool((logits - shifted).norm() <= _SHIFT_TOLERANCE * logits.norm())
