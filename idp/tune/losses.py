"""What every prompt costs on every example: the numbers that selectors learn from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.run.score import Scored, score_prompts
from idp.run.store import PrefixStore
from idp.tune.checkpoint import load_tensors, save_tensors
from idp.tune.examples import Example

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["example_losses", "kept_losses"]


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
    table = score_prompts(store, [example.request for example in examples], batch_size=batch_size, advance=advance)
    losses = [[_loss(example, scored) for scored in row] for example, row in zip(examples, table, strict=True)]
    return torch.tensor(losses, dtype=torch.float64).reshape(len(examples), len(store) + 1)  # (N, m + 1)


def kept_losses(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    examples: Sequence[Example],
    folder: Path,
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """Measure the losses of examples under prompts as `example_losses` does, once: a later call reads them.

    Args:
        lm: the model.
        prompts: `m` prompts.
        examples: `N` examples.
        folder: where the losses are kept.
        advance: as for `example_losses`.

    Returns:
        `(N, m + 1)`, the last column without a prompt.

    Raises:
        IdpError: as for `example_losses`.
        OutputError: the folder cannot be written to.
    """
    asked = [[prompt.digest for prompt in prompts], list(examples), lm.fingerprint, lm.dtype]
    key = hashlib.sha256(repr(asked).encode()).hexdigest()
    path = folder / f"losses-{key[:16]}.safetensors"
    if (kept := load_tensors(path, key)) is not None:
        return kept["losses"]
    losses = example_losses(PrefixStore(lm, PromptBank(prompts)), examples, advance=advance)
    save_tensors(path, {"losses": losses}, key)
    return losses


def _loss(example: Example, scored: Scored) -> float:
    likelihoods = torch.tensor([option.loglikelihood for option in scored.scores], dtype=torch.float64)  # (options,)
    if len(likelihoods) > 1:
        return 1 - float(likelihoods.softmax(0)[example.answer])
    return 1 - math.exp(float(likelihoods[0]) / (len(example.right) if example.is_text else 1))
