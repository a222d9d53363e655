"""How much attention an input's tokens pay to each prompt: pure functions of queries and keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from idp.select.layer_view import Projections

__all__ = ["Score", "attention_scores"]

Score = Literal["joint_mean", "joint_mass", "separate_mean", "logit_mean"]


def attention_scores(
    projections: Projections, keys: Tensor, lengths: Sequence[int], counted: Tensor, score: Score = "joint_mean"
) -> Tensor:
    """Score every prompt by the attention of the input's tokens.

    Args:
        projections: queries and keys of `B` inputs padded on the right.
        keys: keys of the `m` prompts one after another, `(H, N, d_h)` with `N = sum n_i`.
        lengths: `n_i` of each prompt.
        counted: `(B, T)`, True for the query tokens; at least one in a row.
        score: the rule; see `AttentionSelector`.

    Returns:
        `(B, m)` in fp32.
    """
    owner = _owner(lengths, keys)  # (N, m)
    to_prompts = projections.logits(projections.query, keys)  # (B, H, T, N)
    if score == "logit_mean":
        mass = to_prompts @ owner  # (B, H, T, m)
    elif score == "separate_mean":
        mass = _separate_mass(to_prompts, _to_input(projections), lengths)  # (B, H, T, m)
    else:
        mass = _joint_mass(to_prompts, _to_input(projections), owner)  # (B, H, T, m)
    mass = torch.where(counted[:, None, :, None], mass, 0.0).sum(dim=(1, 2))  # (B, m)
    mass = mass / (keys.shape[0] * counted.sum(dim=1, keepdim=True))
    return mass if score == "joint_mass" else mass / owner.sum(dim=0)


def _owner(lengths: Sequence[int], keys: Tensor) -> Tensor:
    """Return `(N, m)`, 1 where a key is a prompt's own: multiplying by it sums over each prompt's tokens."""
    prompts = torch.arange(len(lengths))
    return (torch.repeat_interleave(prompts, torch.tensor(lengths))[:, None] == prompts).to(keys)


def _to_input(projections: Projections) -> Tensor:
    """Return the input's logits on itself `(B, H, T, T)`, `-inf` on what comes later.

    Padding stands behind every token that counts, so looking back only is enough to miss it.
    """
    logits = projections.logits(projections.query, projections.key)  # (B, H, T, T)
    future = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)  # (T, T)
    return logits.masked_fill_(future, -torch.inf)


def _joint_mass(to_prompts: Tensor, to_input: Tensor, owner: Tensor) -> Tensor:
    """Return what one softmax over all prompts and the input gives each prompt, `(B, H, T, m)`."""
    largest = torch.maximum(to_prompts.amax(dim=-1), to_input.amax(dim=-1))[..., None]  # (B, H, T, 1)
    # In place: these are the largest tensors of the whole rule.
    mass = to_prompts.sub_(largest).exp_() @ owner  # (B, H, T, m)
    own = to_input.sub_(largest).exp_().sum(dim=-1, keepdim=True)  # (B, H, T, 1)
    return mass / (mass.sum(dim=-1, keepdim=True) + own)


def _separate_mass(to_prompts: Tensor, to_input: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return what each prompt gets where it is alone with the input, `(B, H, T, m)`."""
    own = to_input.logsumexp(dim=-1)  # (B, H, T)
    # In logs, since a prompt may lie far below another that it has nothing to do with.
    each = [part.logsumexp(dim=-1) for part in torch.split(to_prompts, list(lengths), dim=-1)]
    return torch.sigmoid(torch.stack(each, dim=-1) - own[..., None])
