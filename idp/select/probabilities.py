"""Scores of prompts by the probabilities that answers have under them, and the calibration of these probabilities.

Throughout, `p` is `(T, X, Y)`: the probability of answer `y` to input `x` under prompt `t`, 1 in sum over the answers.

Source: the unified framework of arXiv 2305.14877 (TACL 2024), tables 1 and 2, and its repository.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

__all__ = ["OF_A_PROMPT", "cbm", "certainty", "entropy", "global_entropy"]

_TINY = 1e-7


def entropy(p: Tensor) -> Tensor:
    """`H(p) = -sum_y p_y log(p_y + 1e-7)` in nats: `(..., Y)` to `(...)`.

    Example:
        >>> round(float(entropy(torch.tensor([0.5, 0.5]))), 4)
        0.6931
    """
    return -(p * (p + _TINY).log()).sum(dim=-1)


def global_entropy(p: Tensor, *, hard: bool = False) -> Tensor:
    """Entropy of the mean answer of each prompt, `(T, X, Y)` to `(T,)`.

    Args:
        p: probabilities.
        hard: count the most probable answers (GE) instead of averaging probabilities (GE_M).
    """
    answers = one_hot(p.argmax(dim=-1), p.shape[-1]).to(p) if hard else p
    return entropy(answers.mean(dim=1))


def certainty(p: Tensor) -> Tensor:
    """MDL of each input, `-H(p[t, x])`: `(T, X, Y)` to `(T, X)`. The least uncertain prompt has the largest."""
    return -entropy(p)


def _agreement(p: Tensor, consensus: Tensor) -> Tensor:
    """Share of inputs for which each prompt's answer is that of a consensus `(X, Y)`: `(T,)`."""
    return (p.argmax(dim=-1) == consensus.argmax(dim=-1)).to(p).mean(dim=1)


def _votes(p: Tensor) -> Tensor:
    return one_hot(p.argmax(dim=-1), p.shape[-1]).sum(dim=0)  # (X, Y)


OF_A_PROMPT: dict[str, Callable[[Tensor], Tensor]] = {
    "le": lambda p: entropy(p).mean(dim=1),
    "mdl": lambda p: certainty(p).mean(dim=1),
    "ge": lambda p: global_entropy(p, hard=True),
    "ge-mean": global_entropy,
    "mi": lambda p: global_entropy(p) + certainty(p).mean(dim=1),
    "mi-g": lambda p: global_entropy(p, hard=True) + certainty(p).mean(dim=1),
    "zlp": lambda p: _agreement(p, (p + _TINY).log().mean(dim=0)),
    "zpm": lambda p: _agreement(p, p.mean(dim=0)),
    "zmv": lambda p: _agreement(p, _votes(p)),
}
"""Scores of a prompt over many inputs, `(T, X, Y)` to `(T,)`; the largest wins. None of them looks at right answers.

`le`, local entropy; `mdl`, its negative; `ge` and `ge-mean`, global entropies; `mi` and `mi-g`, mutual information, a
global entropy less the local one; `zlp`, `zpm`, `zmv`, agreement with the mean log-probability, the mean probability
and the majority of all prompts.
"""


def cbm(p: Tensor, mean: Tensor | None = None, *, softmax: bool = True) -> Tensor:
    """Calibrate by marginalisation: divide every answer's probability by what the prompt gives it on average.

    Args:
        p: probabilities `(T, X, Y)`.
        mean: of each prompt over calibration inputs, `(T, Y)`; None takes that of `p`.
        softmax: make probabilities of the ratios by a softmax, as published; else by their sum.

    Returns:
        `(T, X, Y)`.

    Source: arXiv 2305.14877 section 5.

    Example:
        >>> cbm(torch.tensor([[[0.9, 0.1], [0.2, 0.8]]]), softmax=False)[0, 0].sum()
        tensor(1.)
    """
    average = p.mean(dim=1) if mean is None else mean  # (T, Y)
    ratios = p / average[:, None].clamp_min(torch.finfo(p.dtype).tiny)  # (T, X, Y)
    return ratios.softmax(dim=-1) if softmax else ratios / ratios.sum(dim=-1, keepdim=True)
