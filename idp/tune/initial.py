"""Where the tuning of a prompt starts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idp.errors import TaskError
from idp.tune.examples import Example

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["frequent_rows"]

_FREQUENT = 512


def frequent_rows(lm: LanguageModel, examples: Sequence[Example], num_virtual_tokens: int, seed: int) -> Tensor:
    """Draw the embeddings of tokens that are frequent in the examples.

    Rows of the vocabulary are on the scale the model knows; noise of unit variance is some fifty times too large.

    Args:
        lm: the model.
        examples: where tokens are counted, contexts and right answers; special tokens are left out.
        num_virtual_tokens: length `n` of the prompt.
        seed: which of the 512 most frequent tokens.

    Returns:
        `(n, d)` in fp32 on the CPU; no token twice while there are enough of them.

    Raises:
        TaskError: the examples have no tokens, or the length is below 1.

    Source: arXiv 2104.08691 section 3.2, "sampled vocabulary".

    Example:
        >>> frequent_rows(lm, examples, 16, seed=0).shape  # doctest: +SKIP
        torch.Size([16, 160])
    """
    if num_virtual_tokens < 1:
        raise TaskError(f"a prompt of {num_virtual_tokens} tokens is not possible; give 1 or more.")
    counts = Counter(token for example in examples for token in (*example.context, *example.right))
    for token in lm.tokenizer.all_special_ids:
        counts.pop(token, None)
    # Equally frequent tokens in the order of their ids, so that the order of the examples does not matter.
    pool = sorted(counts, key=lambda token: (-counts[token], token))[:_FREQUENT]
    if not pool:
        raise TaskError("there are no tokens in the examples to start a prompt from.")
    times = -(-num_virtual_tokens // len(pool))
    drawn = random.Random(seed).sample(pool * times, num_virtual_tokens)
    with torch.no_grad():
        return lm.embed(torch.tensor(drawn)).float().cpu()  # (n, d)
