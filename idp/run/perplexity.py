"""How well a model predicts running text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from idp.errors import TaskError
from idp.run.forward import call_model
from idp.run.guard import broken_numbers

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["perplexity"]

_LOGITS = 1 << 26
_MOST_ROWS = 8


def _batches(rows: Sequence[Sequence[int]], batch_size: int) -> list[Tensor]:
    """Put rows of one length into batches, `(at most batch_size, L)` each.

    Raises:
        TaskError: there are no rows.
    """
    if not rows:
        raise TaskError("there is no text to measure on.")
    return list(torch.split(torch.tensor([list(row) for row in rows]), batch_size))


def _rows_at_once(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> int:
    longest = max(map(len, rows), default=1)
    return max(1, min(_MOST_ROWS, _LOGITS // (longest * lm.vocab_size)))


@torch.no_grad()
def perplexity(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    *,
    batch_size: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> float:
    """Return `exp(- mean log p(token | tokens before it in its row))` over all tokens but the first of each row.

    Args:
        lm: the model; no prompt is put in front.
        rows: token ids, all of one length (`idp.text.rows.token_rows`).
        batch_size: rows run at once; None for as many as keep the logits within 256 MB, and one at least.
        advance: called with the number of rows just finished.

    Raises:
        TaskError: there are no rows.
        ModelError: the model computed NaN.

    Example:
        >>> perplexity(lm, token_rows(lm, read_documents("text.txt"), 256))  # doctest: +SKIP
        5.31
    """
    total, count = 0.0, 0
    for batch in _batches(rows, batch_size or _rows_at_once(lm, rows)):
        logits = call_model(lm, input_ids=batch.to(lm.device), use_cache=False)  # (B, L, V)
        targets = batch[:, 1:].to(logits.device)  # (B, L - 1)
        total += float(cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten(), reduction="sum"))
        count += targets.numel()
        if advance is not None:
            advance(len(batch))
    if math.isnan(total):
        raise broken_numbers(lm, "NaN for a text")
    return float(torch.tensor(total / count, dtype=torch.float64).exp())  # infinite where Python's own would raise
