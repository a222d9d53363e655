"""Cutting examples into batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence

from idp.tune.examples import Example

__all__ = ["batches_of"]

_TOKENS = 48


def batches_of(examples: Sequence[Example], rows: int) -> list[list[int]]:
    """Group examples of similar length, so that little is padded; running text, which needs more logits, apart.

    Args:
        examples: examples in any order.
        rows: most examples of a batch; fewer where they have more than 48 tokens each, to bound the memory.

    Returns:
        Positions in `examples`; each is in one batch.

    Example:
        >>> short, long = Example((1, 2), ((3,),), 0, "t"), Example((1,) * 90, ((3,),), 0, "t")
        >>> batches_of([short, long, short], rows=8)
        [[0, 2], [1]]
    """
    lengths = [example.request.packed_length for example in examples]
    batches: list[list[int]] = []
    tokens = 0  # of the last batch
    for i in sorted(range(len(examples)), key=lambda i: (examples[i].is_text, lengths[i], i)):
        first = batches[-1][0] if batches else None
        if (
            first is None
            or len(batches[-1]) == rows
            or tokens + lengths[i] > rows * _TOKENS
            or examples[i].is_text != examples[first].is_text
            or _too_unequal(lengths[i], lengths[first])
        ):
            batches.append([])
            tokens = 0
        batches[-1].append(i)
        tokens += lengths[i]
    return batches


def _too_unequal(longest: int, shortest: int) -> bool:
    """Whether the shorter would be mostly padding beside the longer (a rule of thumb)."""
    return longest > 1.4 * shortest + 8
