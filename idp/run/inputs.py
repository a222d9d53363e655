"""The token ids given to `generate`, made ready for prompts: what is padding, and padding only on the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from idp.errors import ModelError

__all__ = ["Inputs", "on_device", "pad_left", "pad_right", "read_inputs"]


@dataclass(frozen=True, eq=False)
class Inputs:
    """A batch of token ids.

    Attributes:
        given: `(B, T)` as they came.
        ids: `(B, T)` with right padding moved to the left.
        mask: `(B, T)`, 1 at tokens of `ids`, 0 at padding.
        moved: whether `ids` differs from `given`.
    """

    given: Tensor
    ids: Tensor
    mask: Tensor
    moved: bool

    def rows(self) -> list[list[int]]:
        """Token ids of each row without padding."""
        return [row[keep].tolist() for row, keep in zip(self.ids, self.mask.bool(), strict=True)]


def read_inputs(
    given: Any,
    attention_mask: Any,
    pad_token_id: int | None,
    eos_token_ids: Sequence[int],
    *,
    vocab_size: int | None = None,
) -> Inputs:
    """Check a batch and move its padding to the left.

    Without a mask, padding is found as `generate` of transformers finds it: the padding token, unless it is also an
    end token.

    Args:
        given: token ids `(B, T)`.
        attention_mask: `(B, T)` of 1 at tokens and 0 at padding, or None.
        pad_token_id: the padding token, None when there is none.
        eos_token_ids: the end tokens.
        vocab_size: the ids lie below it; None does not check.

    Returns:
        The batch, on the device of `given`.

    Raises:
        ModelError: not a matrix of integers, ids outside the vocabulary, a mask of another shape, or a row without
            any token.
    """
    if not isinstance(given, Tensor) or given.ndim != 2 or given.is_floating_point() or given.numel() == 0:
        shape = f"shape {tuple(given.shape)}, {given.dtype}" if isinstance(given, Tensor) else type(given).__name__
        raise ModelError(f"input_ids must be a tensor of token ids (B, T) with at least one token, not {shape}.")
    if vocab_size is not None and not 0 <= int(given.min()) <= int(given.max()) < vocab_size:
        raise ModelError(
            f"input_ids hold ids from {int(given.min())} to {int(given.max())}, but the model knows 0 to "
            f"{vocab_size - 1}: were they made with another model's tokenizer?"
        )
    mask = _inferred_mask(given, pad_token_id, eos_token_ids) if attention_mask is None else attention_mask
    if mask.shape != given.shape:
        raise ModelError(f"attention_mask has shape {tuple(mask.shape)}, but input_ids has {tuple(given.shape)}.")
    mask = mask.to(device=given.device, dtype=torch.long)
    empty = (mask.sum(-1) == 0).nonzero()
    if len(empty):
        raise ModelError(f"row {int(empty[0])} of input_ids is all padding; begin an empty input with the bos token.")
    return _moved_left(given, mask)


def on_device(given: Any, device: torch.device) -> Any:
    """Move token ids to the model's device; what is no tensor is passed on, to be refused by name.

    Raises:
        ModelError: they are on a device that they cannot be moved from.
    """
    if not isinstance(given, Tensor) or given.device == device:
        return given
    try:
        return given.to(device)
    except (NotImplementedError, RuntimeError) as error:
        raise ModelError(
            f"input_ids are on {given.device} and cannot be moved to the model's {device}: {error}"
        ) from error


def _inferred_mask(given: Tensor, pad_token_id: int | None, eos_token_ids: Sequence[int]) -> Tensor:
    if pad_token_id is None or pad_token_id in eos_token_ids:
        return torch.ones_like(given)
    return (given != pad_token_id).long()


def _moved_left(given: Tensor, mask: Tensor) -> Inputs:
    trailing = (mask.flip(-1).cumsum(-1) == 0).sum(-1, keepdim=True)  # (B, 1) padding behind the last token
    if not bool(trailing.any()):
        return Inputs(given, given, mask, moved=False)
    width = given.shape[1]
    source = (torch.arange(width, device=given.device) - trailing) % width  # (B, T)
    return Inputs(given, given.gather(-1, source), mask.gather(-1, source), moved=True)


def pad_left(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Make one batch of rows of token ids: ids and mask, `(B, T)` each."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad_token_id] * (width - len(row)) + list(row) for row in rows], dtype=torch.long)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], dtype=torch.long)
    return ids, mask


def pad_right(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Make one batch of rows of token ids, padded behind their ends: ids and mask, `(B, T)` each."""
    ids, mask = pad_left([row[::-1] for row in rows], pad_token_id)
    return ids.flip(-1), mask.flip(-1)
