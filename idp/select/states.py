"""What a model has understood of a context: a hidden state on the way up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from idp.run.guard import broken_numbers

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["context_states", "shallow_states"]

_TOKENS_A_BATCH = 4096
"""Bounds what all layers keep at once: 2 GB in half precision for 32 layers of width 8,192."""


def context_states(lm: LanguageModel, contexts: Sequence[Sequence[int]]) -> Tensor:
    """Return the hidden state behind the middle layer at the last token of each context.

    Half-way up a model has gathered what is asked: clusters of these states agree with the kind of fact better than
    those of mean input embeddings (`tests/tune/test_partition.py`).

    Args:
        lm: the model; it is run without a prompt.
        contexts: token ids of `N` contexts, none of them empty.

    Returns:
        `(N, d)` in fp64 on the CPU.

    Raises:
        ModelError: the model computed NaN.

    Source: middle layers as features of a sentence, arXiv 2502.02013.

    Example:
        >>> context_states(lm, [[1, 5, 6], [1, 7]]).shape  # doctest: +SKIP
        torch.Size([2, 160])
    """
    return _states(lm, contexts, partial(_middle_states, lm))


def shallow_states(lm: LanguageModel, decoder: nn.Module, contexts: Sequence[Sequence[int]]) -> Tensor:
    """Return the hidden state at the last token of each context behind the layers of a view.

    Only these layers are run, and what stands behind the last of them, as a rule the model's final norm.

    Args:
        lm: the model.
        decoder: `idp.model.view.shallow(lm, layers)`.
        contexts: token ids of `N` contexts, none of them empty.

    Returns:
        `(N, d)` in fp64 on the CPU.

    Raises:
        ModelError: the model computed NaN.

    Example:
        >>> shallow_states(lm, shallow(lm, 2), [[1, 5, 6], [1, 7]]).shape  # doctest: +SKIP
        torch.Size([2, 160])
    """
    return _states(lm, contexts, partial(_last_states, lm, decoder))


def _states(
    lm: LanguageModel, contexts: Sequence[Sequence[int]], run: Callable[[list[Sequence[int]]], Tensor]
) -> Tensor:
    """Run contexts in batches of one length, `(N, d)`."""
    states = torch.empty(len(contexts), lm.hidden_size, dtype=torch.float64)
    for rows in _batches(contexts):
        states[rows] = run([contexts[row] for row in rows])
    if not bool(torch.isfinite(states).all()):
        raise broken_numbers(lm, "hidden states that are no numbers")
    return states


def _batches(contexts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Positions of contexts of one length, together no more tokens than a batch may hold."""
    batches: list[list[int]] = []
    for row in sorted(range(len(contexts)), key=lambda row: len(contexts[row])):
        length = len(contexts[row])
        fits = batches and len(contexts[batches[-1][0]]) == length
        if not fits or (len(batches[-1]) + 1) * length > _TOKENS_A_BATCH:
            batches.append([])
        batches[-1].append(row)
    return batches


@torch.no_grad()
def _middle_states(lm: LanguageModel, contexts: list[Sequence[int]]) -> Tensor:
    ids = torch.tensor([list(context) for context in contexts], device=lm.device)  # (B, T)
    layers = lm.model.base_model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    states: Tensor = layers[len(layers) // 2][:, -1]  # (B, d)
    return states.to("cpu", torch.float64)


@torch.no_grad()
def _last_states(lm: LanguageModel, decoder: nn.Module, contexts: list[Sequence[int]]) -> Tensor:
    ids = torch.tensor([list(context) for context in contexts], device=lm.device)  # (B, T)
    states: Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state[:, -1]  # (B, d)
    return states.to("cpu", torch.float64)
