"""The selector that does not look: what a choice is worth by chance."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from idp.select.base import Selection, Selector, pick

__all__ = ["RandomSelector"]


class RandomSelector(Selector):
    """Any of the prompts or none, each with the same probability.

    The draw depends on the seed and on the input's tokens only, so neither order nor batching changes it.
    Scores: one uniform number from [0, 1) an arm, the largest wins.

    Args:
        seed: another seed, another draw.

    Example:
        >>> RandomSelector(seed=1).fit(bank, lm).select([5, 6]).index  # doctest: +SKIP
        0
    """

    name: ClassVar[str] = "random"

    def __init__(self, *, seed: int = 0) -> None:
        """Keep the seed."""
        self.seed = seed

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Draw an arm for each input."""
        arms = len(self.bank) + 1
        if not inputs:
            return []
        return pick(torch.stack([_uniform(self.seed, tokens, arms) for tokens in inputs]))


def _uniform(seed: int, tokens: Sequence[int], count: int) -> Tensor:
    """Hash a seed and an input to `count` numbers in [0, 1), `(count,)`."""
    key = f"{seed}:{','.join(map(str, tokens))}".encode()
    words = np.frombuffer(hashlib.shake_256(key).digest(8 * count), dtype="<u8")
    return torch.from_numpy((words >> 11).astype(np.float64) / 2.0**53)
