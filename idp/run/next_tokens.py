"""What comes next: the probability of every token of the vocabulary behind a context, each under its own prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idp.run.batching import BatchSize
from idp.run.guard import broken_numbers
from idp.run.packing import Request, lay_out
from idp.run.passes import Job
from idp.run.readout import readout
from idp.run.score import run_requests
from idp.run.ways import PASSES, Way

if TYPE_CHECKING:
    from idp.run.store import PrefixStore

__all__ = ["next_tokens"]


def next_tokens(
    store: PrefixStore,
    contexts: Sequence[Sequence[int]],
    choices: Sequence[int],
    *,
    batch_size: int | BatchSize | None = None,
) -> Tensor:
    """Compute `log P(token | prompt, context)` for every token of the vocabulary.

    Args:
        store: the model and its prompts.
        contexts: token ids, none of them empty.
        choices: for each context the index of its prompt, -1 for none.
        batch_size: as for `score`.

    Returns:
        `(N, V)` in fp32 on the CPU.

    Raises:
        IdpError: as for `score`.

    Example:
        >>> next_tokens(store, [[1, 17, 4]], [-1]).exp().sum()  # doctest: +SKIP
        tensor(1.)
    """
    found = torch.empty(len(contexts), store.lm.vocab_size)  # (N, V)
    requests = [Request(tuple(context), ()) for context in contexts]
    for batch, logs, _ in run_requests(store, requests, choices, _log_probabilities, batch_size):
        found[[job.number for job in batch]] = logs
    return found


@torch.no_grad()
def _log_probabilities(store: PrefixStore, batch: list[Job], way: Way) -> Tensor:
    """Run one batch; `(B, V)` in its order."""
    layout = lay_out([job.request for job in batch], store.lm.pad_token_id)
    states = PASSES[way](store, batch, layout)  # (B, d): of every row the end of its context
    logs = torch.cat([logits.log_softmax(-1).cpu() for _, logits in readout(store.lm).logits(states)])
    if bool(logs.isnan().any()):
        raise broken_numbers(store.lm, "NaN instead of probabilities")
    return logs
