"""What a selector sees of an input without running the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from idp.model.loaded import LanguageModel

__all__ = ["mean_embeddings"]

_TOKENS_A_CHUNK = 16_384
"""Tokens embedded at once: 256 MB of fp32 at width 4,096."""


def mean_embeddings(lm: LanguageModel, inputs: Sequence[Sequence[int]]) -> Tensor:
    """Average the input embeddings of each input's tokens, `e(x) = mean_t E[x_t]`.

    No padding is involved, so what shares the call with an input does not matter to it.

    Args:
        lm: the model whose embeddings are taken, through its own module.
        inputs: token ids of `N` inputs.

    Returns:
        `(N, d)` in fp64 on the CPU; rows of empty inputs are NaN, for the caller to fill.

    Example:
        >>> mean_embeddings(lm, [[5, 6], [7]]).shape  # doctest: +SKIP
        torch.Size([2, 192])
    """
    if not inputs:
        return torch.empty(0, lm.hidden_size, dtype=torch.float64)
    with torch.no_grad():
        return torch.cat([_mean_chunk(lm, chunk) for chunk in _chunks(inputs)])  # (N, d)


def _chunks(inputs: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    chunk: list[Sequence[int]] = []
    tokens = 0
    for ids in inputs:
        if chunk and tokens + len(ids) > _TOKENS_A_CHUNK:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(ids)
        tokens += len(ids)
    yield chunk


def _mean_chunk(lm: LanguageModel, inputs: list[Sequence[int]]) -> Tensor:
    lengths = torch.tensor([len(ids) for ids in inputs])  # (B,)
    ids = torch.tensor([token for row in inputs for token in row], dtype=torch.long)  # (sum T,)
    sums = torch.zeros(len(inputs), lm.hidden_size, dtype=torch.float64)
    if len(ids):
        rows = torch.repeat_interleave(torch.arange(len(inputs)), lengths)  # (sum T,)
        embedded = lm.embed(ids[None])[0].to("cpu", torch.float64)  # (sum T, d)
        sums.index_add_(0, rows, embedded)  # (B, d)
    return sums / lengths[:, None].to(torch.float64)
