"""What every prompt costs on every example: the numbers that selectors learn from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.run.batching import BatchSize
from idp.run.score import Score, score
from idp.run.store import PrefixStore
from idp.tune.checkpoint import load_tensors, save_tensors
from idp.tune.examples import Example

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["example_losses", "kept_losses", "loss_of"]


def example_losses(
    store: PrefixStore,
    examples: Sequence[Example],
    batch_size: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """Measure the loss of every example under every prompt, and without one.

    The loss is the probability of being wrong. With log-likelihoods `l_j` of the options and the right one `a`:
    `1 - softmax(l)_a` where there are two or more options, `1 - exp(l_a)` for the one answer of a question, and for
    running text, which begins with a lone start token, `1 - exp(l_a / tokens)`. It is bounded, so a few hopeless items
    do not decide which prompt is best: routers trained on it chose better on held-out facts than those trained on
    log-likelihoods.

    Args:
        store: the model and its bank of `m` prompts.
        examples: `N` examples.
        batch_size: rows run at once; None finds a size.
        advance: called with the number of measured losses just added, `N (m + 1)` in all.

    Returns:
        `(N, m + 1)` in [0, 1], fp64 on the CPU; the last column is "no prompt".

    Raises:
        PromptTooLongError: a prompt and an example do not fit into the model's context.
        ModelError: the model computed NaN.

    Example:
        >>> example_losses(PrefixStore(lm, bank), examples).shape  # doctest: +SKIP
        torch.Size([500, 10])
    """
    size = BatchSize(batch_size)
    columns = [_column(store, arm, examples, size, advance) for arm in _arms(store)]  # (N,) each
    return torch.stack(columns, dim=1)


def kept_losses(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    examples: Sequence[Example],
    folder: Path,
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """Measure the losses of examples under prompts as `example_losses` does, each once: later calls read them.

    Args:
        lm: the model.
        prompts: `m` prompts.
        examples: `N` examples.
        folder: where the losses are kept, a file a prompt.
        advance: as for `example_losses`.

    Returns:
        `(N, m + 1)`, the last column without a prompt.

    Raises:
        IdpError: as for `example_losses`.
        OutputError: the folder cannot be written to.
    """
    store, size = PrefixStore(lm, PromptBank(prompts)), BatchSize(None)
    digests = [*(prompt.digest for prompt in prompts), "none"]
    columns = [
        _kept(
            folder,
            repr((digest, lm.fingerprint, lm.dtype)),
            examples,
            partial(_column, store, arm, size=size, advance=advance),
            advance,
        )
        for arm, digest in zip(_arms(store), digests, strict=True)
    ]
    return torch.stack(columns, dim=1)  # (N, m + 1)


def _kept(
    folder: Path,
    identity: str,
    examples: Sequence[Example],
    measure: Callable[[list[Example]], Tensor],
    advance: Callable[[int], None] | None,
) -> Tensor:
    """The losses of examples under one prompt, `(N,)`, from its file; what is missing there is measured and added."""
    key = hashlib.sha256(identity.encode()).hexdigest()
    path = folder / f"losses-{key[:16]}.safetensors"
    kept = load_tensors(path, key)
    known = dict(zip(kept["examples"].tolist(), kept["losses"].tolist(), strict=True)) if kept else {}
    marks = [_mark(example) for example in examples]
    missing = {mark: example for mark, example in zip(marks, examples, strict=True) if mark not in known}
    if advance:
        advance(len(examples) - len(missing))
    if missing:
        known |= zip(missing, measure([*missing.values()]).tolist(), strict=True)
        losses = torch.tensor([*known.values()], dtype=torch.float64)
        save_tensors(path, {"examples": torch.tensor([*known]), "losses": losses}, key)
    return torch.tensor([known[mark] for mark in marks], dtype=torch.float64)


def _mark(example: Example) -> int:
    """What an example is known by, in 63 bits."""
    return int.from_bytes(hashlib.sha256(repr(example).encode()).digest()[:8], "big") >> 1


def _arms(store: PrefixStore) -> list[int]:
    return [*range(len(store)), -1]


def _column(
    store: PrefixStore,
    arm: int,
    examples: Sequence[Example],
    size: BatchSize,
    advance: Callable[[int], None] | None,
) -> Tensor:
    """The losses of examples under one prompt, `(N,)`."""
    requests = [example.request for example in examples]
    scored = score(store, requests, [arm] * len(requests), batch_size=size, advance=advance)
    losses = [loss_of(example, each.scores) for example, each in zip(examples, scored, strict=True)]
    return torch.tensor(losses, dtype=torch.float64)


def loss_of(example: Example, scores: Sequence[Score]) -> float:
    """The loss of an example whose options were scored, as `example_losses` defines it."""
    likelihoods = torch.tensor([option.loglikelihood for option in scores], dtype=torch.float64)  # (options,)
    if len(likelihoods) > 1:
        return 1 - float(likelihoods.softmax(0)[example.answer])
    return 1 - math.exp(float(likelihoods[0]) / (len(example.right) if example.is_text else 1))
