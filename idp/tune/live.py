"""Prompts in front of rows of text, with gradients: computed once for all the batches of a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from idp.run.forward import call_model
from idp.run.packing import Layout, Request, causal_option_mask, lay_out
from idp.run.readout import readout
from idp.run.uncached import positions_of
from idp.tune.memory import recomputed

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["CachedPrompts", "EmbeddedPrompts", "LivePrompts", "Predictions"]


class Predictions(NamedTuple):
    """Logits `(P, V)` in fp32, and the layout that says which of them predict which tokens of which options."""

    logits: Tensor
    layout: Layout


class LivePrompts(Protocol):
    """Prompts that batches of one step are run behind."""

    def predict(self, requests: Sequence[Request], owners: Sequence[int]) -> Predictions:
        """Run rows, each behind the prompt whose number is its owner; gradients stop where the prompts are."""

    def backward(self) -> None:
        """Hand the gradients of all batches so far on to the prompts."""


class CachedPrompts:
    """Prompts as keys and values: options share the reading of their context, batches that of the prompts.

    Gradients of a batch are gathered at the keys and values, so its activations are freed before the next batch, and
    go back through the prompts' own layers once, for all batches together.

    Args:
        lm: the model; it obeys a mask for each query (`idp.run.ways`).
        prompts: `m` prompts `(n_i, d)`, on the model's device and in its dtype.
    """

    def __init__(self, lm: LanguageModel, prompts: Sequence[Tensor]) -> None:
        """Compute the keys and values."""
        self._lm = lm
        self._lengths = torch.tensor([len(prompt) for prompt in prompts])  # (m,)
        longest = int(self._lengths.max())
        self._mask = (torch.arange(longest) >= longest - self._lengths[:, None]).long().to(lm.device)  # (m, N0)
        self._computed = _prefill(lm, prompts, longest)
        self._leaves = [[part.detach().requires_grad_() for part in layer] for layer in self._computed]

    def predict(self, requests: Sequence[Request], owners: Sequence[int]) -> Predictions:
        """Run each request as one row, its options behind one another and not seeing each other."""
        lm, device = self._lm, self._lm.device
        layout = lay_out(requests, lm.pad_token_id)
        numbers = torch.tensor(owners)
        rows = numbers.to(device)
        cache = DynamicCache()
        for number, layer in enumerate(self._leaves):
            keys, values = (_of_rows(part, rows) for part in layer)  # (B, kv_heads, N0, head_dim)
            cache.update(keys, values, number)
        states = readout(lm).states(
            layout.tail,
            input_ids=layout.input_ids.to(device),
            attention_mask=causal_option_mask(layout.segments.to(device), self._mask[rows], lm.dtype),
            position_ids=(layout.positions + self._lengths[numbers][:, None]).to(device),
            past_key_values=cache,
            use_cache=True,
        )  # (B, K, d)
        return Predictions(_logits(lm, states, layout), layout)

    def backward(self) -> None:
        """Go back through the layers of the prompts."""
        pairs = [pair for pairs in zip(self._computed, self._leaves, strict=True) for pair in zip(*pairs, strict=True)]
        _hand_on(pairs)


class EmbeddedPrompts:
    """Prompts as plain input, a row of its own for every option: for models that share no context, and to save memory.

    Args:
        lm: the model.
        prompts: `m` prompts `(n_i, d)`, on the model's device and in its dtype.
        recompute: compute activations again in the backward pass.
    """

    def __init__(self, lm: LanguageModel, prompts: Sequence[Tensor], recompute: bool = False) -> None:
        """Compute nothing yet."""
        self._lm, self._recompute = lm, recompute
        self._prompts = list(prompts)
        self._leaves = [prompt.detach().requires_grad_() for prompt in prompts]

    def predict(self, requests: Sequence[Request], owners: Sequence[int]) -> Predictions:
        """Run a row `[padding; prompt; context; option]` for every option."""
        lm, device = self._lm, self._lm.device
        pairs = list(zip(requests, owners, strict=True))
        rows = [(Request(r.context, (option,)), owner) for r, owner in pairs for option in r.continuations]
        layout = lay_out([request for request, _ in rows], lm.pad_token_id)
        starts = (layout.segments < 0).sum(1).tolist()  # the prompt goes between padding and text
        embeds = lm.embed(layout.input_ids)  # (R, Q, d)
        joined = [
            torch.cat([self._leaves[owner], row[start:]])
            for (_, owner), row, start in zip(rows, embeds, starts, strict=True)
        ]
        width = max(len(row) for row in joined)
        full = torch.stack([pad(row, (0, 0, width - len(row), 0)) for row in joined])  # (R, S, d)
        lengths = torch.tensor([len(row) for row in joined], device=device)
        mask = (torch.arange(width, device=device) >= width - lengths[:, None]).long()  # (R, S)
        read = readout(lm)  # found out before layers are told to forget
        with recomputed(lm) if self._recompute else nullcontext():
            states = read.states(
                layout.tail, inputs_embeds=full, attention_mask=mask, position_ids=positions_of(mask), use_cache=False
            )  # (R, K, d)
        return Predictions(_logits(lm, states, layout), layout)

    def backward(self) -> None:
        """Hand the gradients on."""
        _hand_on(zip(self._prompts, self._leaves, strict=True))


_Layers = list[tuple[Tensor, Tensor]]


def _prefill(lm: LanguageModel, prompts: Sequence[Tensor], longest: int) -> _Layers:
    """Keys and values of all prompts, `(m, kv_heads, N0, head_dim)`, those of one length computed together."""
    by_length: dict[int, list[int]] = {}
    for number, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(number)
    caches = [_keys_and_values(lm, torch.stack([prompts[i] for i in same])) for same in by_length.values()]
    order = [number for same in by_length.values() for number in same]
    places = torch.tensor(order, device=lm.device).argsort()  # where each prompt went
    gaps = [longest - length for length in by_length]

    def together(layer: int, part: int) -> Tensor:
        padded = [pad(cache[layer][part], (0, 0, gap, 0)) for cache, gap in zip(caches, gaps, strict=True)]
        return padded[0] if len(padded) == 1 else torch.cat(padded).index_select(0, places)

    return [(together(layer, 0), together(layer, 1)) for layer in range(len(caches[0]))]


def _keys_and_values(lm: LanguageModel, prompts: Tensor) -> _Layers:
    """Run prompts of one length `(m, n, d)`."""
    count, length, _ = prompts.shape
    cache = DynamicCache()
    call_model(
        lm,
        inputs_embeds=prompts,
        attention_mask=torch.ones(count, length, dtype=torch.long, device=prompts.device),
        position_ids=torch.arange(length, device=prompts.device).expand(count, -1),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return [(layer.keys, layer.values) for layer in cache.layers]


def _hand_on(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Go back from the gradients of leaves through what they were copied from."""
    reached = [(made, leaf.grad) for made, leaf in pairs if leaf.grad is not None and made.requires_grad]
    if reached:  # not in a model whose kernels have no backward pass
        torch.autograd.backward([made for made, _ in reached], [grad for _, grad in reached])


def _of_rows(part: Tensor, rows: Tensor) -> Tensor:
    """Keys or values of each row's prompt: `(m, h, N0, c)` to `(B, h, N0, c)`; gradients are added up in one order."""
    return part.expand(len(rows), -1, -1, -1) if len(part) == 1 else part.index_select(0, rows)


def _logits(lm: LanguageModel, states: Tensor, layout: Layout) -> Tensor:
    """Logits of the predicting positions only: `(B, K, d)` to `(P, V)`."""
    picked = states[layout.rows.to(states.device), layout.columns.to(states.device)]  # (P, d), no position twice
    head = readout(lm).head
    return (picked if head is None else head(picked)).float()
