"""The plain way to run prompts: `[prompt; input]` as embeddings, everything computed anew.

It is what the cached and packed paths have to equal, and what is used where those do not apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from idp.run.store import PrefixStore

__all__ = ["positions_of", "prompted_embeds"]


def prompted_embeds(
    store: PrefixStore, choices: Sequence[int], inputs: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """Embed each input behind its prompt, the rows padded on the left.

    Args:
        store: the model and its prompts.
        choices: the prompt of each row, -1 for none.
        inputs: token ids of each row.

    Returns:
        Embeddings `(B, S, d)` and the mask `(B, S)` of 1 at tokens and 0 at padding.
    """
    rows = [_row(store, choice, ids) for choice, ids in zip(choices, inputs, strict=True)]
    width = max(row.shape[0] for row in rows)
    embeds = torch.stack([pad(row, (0, 0, width - row.shape[0], 0)) for row in rows])  # (B, S, d)
    lengths = torch.tensor([row.shape[0] for row in rows], device=embeds.device)
    mask = (torch.arange(width, device=embeds.device) >= width - lengths[:, None]).long()  # (B, S)
    return embeds, mask


def _row(store: PrefixStore, choice: int, ids: Sequence[int]) -> Tensor:
    embedded = store.lm.embed(torch.tensor([list(ids)], dtype=torch.long))[0]  # (T, d)
    prompt = store.embedding(choice)
    return embedded if prompt is None else torch.cat([prompt, embedded])  # (n + T, d)


def positions_of(mask: Tensor) -> Tensor:
    """Number the tokens of each row from 0, whatever padding is around them: `(B, S)` to `(B, S)`."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)
