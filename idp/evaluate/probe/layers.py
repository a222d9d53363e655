"""What a prompt does inside a model: attention to it, and how far it moves the states of the input, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from idp.run.store import PrefixStore

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Inside", "look_inside"]


@dataclass(frozen=True)
class Inside:
    """What prompts do, layer by layer, the mean over input tokens and inputs.

    Attributes:
        attention: share of an input token's attention that goes to the prompt, the mean over heads, of every layer.
        change: `|h_prompted - h_bare| / |h_bare|` of an input token's state behind every layer, behind the last one's
            norm at the end.
        inputs: how many inputs were looked at.
    """

    attention: tuple[float, ...]
    change: tuple[float, ...]
    inputs: int


@torch.no_grad()
def look_inside(store: PrefixStore, inputs: Sequence[Sequence[int]], choices: Sequence[int]) -> Inside | None:
    """Read inputs with and without their prompts, one by one, and compare.

    Args:
        store: the model and its prompts.
        inputs: token ids.
        choices: the prompt of each; those without one are left out.

    Returns:
        Means over layers; None where no input has a prompt.

    Source: arXiv 2310.00867, the figures on attention and activations.
    """
    pairs = [(ids, choice) for ids, choice in zip(inputs, choices, strict=True) if choice != -1]
    if not pairs:
        return None
    with _attentions_told(store.lm):
        rows = [_one(store, torch.tensor([[*ids]], device=store.lm.device), choice) for ids, choice in pairs]
    attention = torch.stack([row[0] for row in rows]).mean(dim=0)  # (L,)
    change = torch.stack([row[1] for row in rows]).mean(dim=0)  # (L,)
    return Inside(tuple(attention.tolist()), tuple(change.tolist()), len(pairs))


def _one(store: PrefixStore, ids: Tensor, choice: int) -> tuple[Tensor, Tensor]:
    """Attention to the prompt and change of states, `(L,)` each, of one input `(1, T)`."""
    prompt = cast("Tensor", store.embedding(choice))  # (n, d); inputs without one were left out
    embedded = store.lm.model.get_input_embeddings()(ids)  # (1, T, d)
    prompted = _run(store.lm, torch.cat([prompt[None].to(embedded), embedded], dim=1))  # (1, n + T, ...)
    bare = _run(store.lm, embedded)
    n = len(prompt)
    attention = [layer[0, :, n:, :n].float().sum(dim=-1).mean() for layer in prompted.attentions]
    moved = [
        _relative(ours[0, n:].float(), theirs[0].float())
        for ours, theirs in zip(prompted.hidden_states[1:], bare.hidden_states[1:], strict=True)
    ]
    return torch.stack(attention).cpu(), torch.stack(moved).cpu()


def _run(lm: LanguageModel, embeds: Tensor) -> Any:
    return lm.model(inputs_embeds=embeds, use_cache=False, output_attentions=True, output_hidden_states=True)


def _relative(states: Tensor, base: Tensor) -> Tensor:
    """Mean over tokens of how far states `(T, d)` are from others, as a share of these."""
    shares: Tensor = (states - base).norm(dim=-1) / base.norm(dim=-1)  # (T,)
    return shares.mean()


@contextmanager
def _attentions_told(lm: LanguageModel) -> Iterator[None]:
    """Let a model return its attention, which its fast kernels cannot."""
    before = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        lm.model.set_attn_implementation(before)
