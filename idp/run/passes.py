"""Three ways to compute, for a batch of questions, the states that predict the tokens of their options.

All give the same states in the same order, that of `Layout.rows`: of every question the end of its context, then the
tokens of its options. They differ in cost, and in what a model has to be able to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from transformers import DynamicCache

from idp.run.inputs import pad_left, pad_right
from idp.run.packing import Layout, Request, causal_option_mask
from idp.run.prefix import assemble
from idp.run.readout import readout
from idp.run.uncached import positions_of, prompted_embeds

if TYPE_CHECKING:
    from idp.run.store import PrefixStore

__all__ = ["Job", "Pass", "run_expanded", "run_packed", "run_plain"]


@dataclass(frozen=True)
class Job:
    """One row to run: a whole request, or one option of it where options cannot share a context.

    Attributes:
        number: the request it belongs to.
        first: which option of that request is its first.
        request: what is run.
        choice: its prompt, -1 for none.
    """

    number: int
    first: int
    request: Request
    choice: int


Pass: TypeAlias = Callable[["PrefixStore", Sequence[Job], Layout], Tensor]
"""A batch to its states `(P, d)` (or logits, where a model has no head of its own)."""


def run_packed(store: PrefixStore, jobs: Sequence[Job], layout: Layout) -> Tensor:
    """One pass: all options behind their context in one row, under a mask in which they do not see each other."""
    lm, device = store.lm, store.lm.device
    cache, prefix_mask = assemble(store.prefixes([job.choice for job in jobs]))
    lengths = torch.tensor([store.length(job.choice) for job in jobs])[:, None]  # (B, 1)
    states = readout(lm).states(
        layout.tail,
        input_ids=layout.input_ids.to(device),
        attention_mask=causal_option_mask(layout.segments.to(device), prefix_mask.to(device), lm.dtype),
        position_ids=(layout.positions + lengths).to(device),
        past_key_values=cache,
        use_cache=cache is not None,
    )  # (B, K, d)
    return states[layout.rows.to(device), layout.columns.to(device)]


def run_expanded(store: PrefixStore, jobs: Sequence[Job], layout: Layout) -> Tensor:
    """Two passes: the contexts, then a row for each option behind a copy of its context's keys and values.

    For models that take no mask of their own for each query (ALiBi counts positions off the two-dimensional one).
    """
    lm, read = store.lm, readout(store.lm)
    cache, prefix_mask = assemble(store.prefixes([job.choice for job in jobs]))
    cache = DynamicCache() if cache is None else cache
    ids, mask = (tensor.to(lm.device) for tensor in pad_left([job.request.context for job in jobs], lm.pad_token_id))
    seen = torch.cat([prefix_mask.to(lm.device), mask], dim=-1)  # (B, N0 + T)
    ends = read.states(
        1,
        input_ids=ids,
        attention_mask=seen,
        position_ids=positions_of(seen)[:, prefix_mask.shape[1] :],
        past_key_values=cache,
        use_cache=True,
    )[:, 0]  # (B, d)
    options = [(row, option[:-1]) for row, job in enumerate(jobs) for option in job.request.continuations]
    longer = [(row, inner) for row, inner in options if inner]
    if not longer:
        return ends
    owners = torch.tensor([row for row, _ in longer], device=lm.device)  # (O,)
    cache.batch_select_indices(owners)
    ids, kept = (tensor.to(lm.device) for tensor in pad_right([inner for _, inner in longer], lm.pad_token_id))
    seen = torch.cat([seen[owners], kept], dim=-1)  # (O, N0 + T + L)
    width = kept.shape[1]
    inner = read.states(
        width,
        input_ids=ids,
        attention_mask=seen,
        position_ids=positions_of(seen)[:, -width:],
        past_key_values=cache,
        use_cache=True,
    )  # (O, L, d)
    return _in_layout_order(ends, inner, kept, owners)


def _in_layout_order(ends: Tensor, inner: Tensor, kept: Tensor, owners: Tensor) -> Tensor:
    """Put each context's end before the tokens of its options: `(B, d)` and `(O, L, d)` to `(P, d)`."""
    tokens, token_owners = inner[kept.bool()], owners.repeat_interleave(kept.sum(-1))  # (P - B, d), (P - B,)
    rows = torch.cat([torch.arange(len(ends), device=owners.device), token_owners])  # (P,)
    return torch.cat([ends, tokens])[rows.argsort(stable=True)]


def run_plain(store: PrefixStore, jobs: Sequence[Job], layout: Layout) -> Tensor:
    """One pass over rows of one option each, prompt and all computed as plain input: what the others have to equal."""
    lm, device = store.lm, store.lm.device
    options = [job.request.continuations[0] if job.request.continuations else () for job in jobs]
    inputs = [[*job.request.context, *option[:-1]] for job, option in zip(jobs, options, strict=True)]
    choices = [job.choice for job in jobs]
    if all(choice == -1 for choice in choices):  # some models look their tokens up again in every layer
        ids, mask = (tensor.to(device) for tensor in pad_left(inputs, lm.pad_token_id))
        read = {"input_ids": ids}
    else:
        embeds, mask = prompted_embeds(store, choices, inputs)
        read = {"inputs_embeds": embeds}
    states = readout(lm).states(
        layout.tail, **read, attention_mask=mask, position_ids=positions_of(mask), use_cache=False
    )  # (B, K, d)
    return states[layout.rows.to(device), layout.columns.to(device)]
