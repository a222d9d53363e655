"""Both models read the same text, batch by batch, and are compared while they do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from idp.evaluate.damage.activations import Blocks
from idp.evaluate.damage.divergence import Predictions, compare_predictions
from idp.model.view import num_layers
from idp.run.batching import BatchSize, run_batches
from idp.run.readout import readout
from idp.stats.resampling import Interval, bootstrap_means

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Reading", "read_both"]

_KEPT = 1 << 26
"""Numbers of the dense model's states that are kept at once."""


@dataclass(frozen=True)
class Reading:
    """What two models made of the same text.

    Attributes:
        rows: how many rows were read.
        row_tokens: tokens of each.
        path: relative error of each block's output, every model on its own path, mean over tokens.
        own: that of each compressed block on the dense model's input; None where not measured.
        kl: mean divergence a token in nats; 95 % interval over rows, NaN for a single one.
        same: share of tokens with the same first choice, with its interval.
        dense_perplexity: of the dense model.
        compressed_perplexity: of the compressed one.
    """

    rows: int
    row_tokens: int
    path: tuple[float, ...]
    own: tuple[float, ...] | None
    kl: Interval
    same: Interval
    dense_perplexity: float
    compressed_perplexity: float


def read_both(
    dense: LanguageModel,
    compressed: LanguageModel,
    rows: Sequence[Sequence[int]],
    *,
    own: bool = True,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> Reading:
    """Let two models read rows of tokens, and compare their activations and predictions.

    Args:
        dense: the model before compression.
        compressed: an alike model (`require_alike`).
        rows: token ids, all rows of one length (`idp.text.rows.token_rows`).
        own: also run each compressed block on the dense model's input, which costs half as much again.
        seed: of the bootstrap.
        advance: called with the number of rows just finished.

    Raises:
        ModelError: a model computed NaN, or a single row does not fit into memory.

    Example:
        >>> read_both(dense, compressed, token_rows(dense, ["The river ..."], 256)).kl.value  # doctest: +SKIP
        0.31
    """
    row_tokens, predicted = len(rows[0]), []
    path = torch.zeros(num_layers(dense), dtype=torch.float64)  # (L,)
    alone = torch.zeros_like(path)

    def run(batch: list[Sequence[int]]) -> tuple[Blocks, Predictions]:
        return _run(dense, compressed, torch.tensor([list(row) for row in batch]), own)

    size = BatchSize(_rows_at_once(dense, row_tokens))
    for batch, (blocks, predictions), _ in run_batches(list(rows), len, run, size, dense):
        path += blocks.path
        alone += blocks.own if blocks.own is not None else 0
        predicted.append(predictions)
        advance(len(batch))
    tokens = len(rows) * row_tokens
    whole = Predictions(*(torch.cat(parts) for parts in zip(*predicted, strict=True)))  # (rows,) each
    return Reading(
        rows=len(rows),
        row_tokens=row_tokens,
        path=tuple((path / tokens).tolist()),
        own=tuple((alone / tokens).tolist()) if own else None,
        kl=_over_rows(whole.kl, seed),
        same=_over_rows(whole.same, seed),
        dense_perplexity=math.exp(float(whole.dense.mean())),
        compressed_perplexity=math.exp(float(whole.compressed.mean())),
    )


@torch.no_grad()
def _run(dense: LanguageModel, compressed: LanguageModel, ids: Tensor, own: bool) -> tuple[Blocks, Predictions]:
    """One batch `(B, T)` through both models."""
    blocks = Blocks(dense, compressed, own=own)
    readouts = readout(dense), readout(compressed)  # found out before anybody watches
    keep = ids.shape[1]
    with blocks.dense():
        ours = readouts[0].states(keep, input_ids=ids.to(dense.device), use_cache=False)  # (B, T, d)
    with blocks.compressed():
        theirs = readouts[1].states(keep, input_ids=ids.to(compressed.device), use_cache=False)  # (B, T, d)
    return blocks, compare_predictions(dense, compressed, ids, ours, theirs)


def _rows_at_once(lm: LanguageModel, row_tokens: int) -> int:
    """So many rows that the kept states of all layers are no burden, and no more than keep a device busy."""
    at_most = 1 << (11 if lm.device.type == "cpu" else 14)  # tokens
    return max(1, min(_KEPT // (num_layers(lm) * lm.hidden_size), at_most) // row_tokens)


def _over_rows(values: Tensor, seed: int) -> Interval:
    """Mean of values of rows `(n,)` and its 95 % bootstrap interval; one row has none."""
    numbers = values.numpy()
    low = high = math.nan
    if len(numbers) > 1:
        means = bootstrap_means({"rows": {"text": numbers}}, seed)["rows"]  # (R,)
        low, high = (float(bound) for bound in np.percentile(means, [2.5, 97.5]))
    return Interval(float(numbers.mean()), low, high)
