"""What compression did to the predictions: divergence, agreement and surprise, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from idp.run.guard import broken_numbers
from idp.run.readout import readout

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Predictions", "compare_predictions"]


class Predictions(NamedTuple):
    """Means over the predicted tokens of each row, `(B,)` each, in float64.

    Attributes:
        kl: `KL(p ‖ p̂) = Σ_v p_v (log p_v − log p̂_v)` of the next token, in nats, `p` being the dense model's.
        same: share of tokens with the same first choice.
        dense: surprise of the dense model at the token that came, `−log p`, in nats.
        compressed: that of the compressed model.
    """

    kl: Tensor
    same: Tensor
    dense: Tensor
    compressed: Tensor


@torch.no_grad()
def compare_predictions(
    dense: LanguageModel, compressed: LanguageModel, ids: Tensor, ours: Tensor, theirs: Tensor
) -> Predictions:
    """Compare what two models predict behind the same tokens; logits are computed for some positions at a time.

    Args:
        dense: the model before compression.
        compressed: the other.
        ids: rows `(B, T)`, `T` at least 2; the first token of a row is not predicted.
        ours: states of the dense model that its head reads, `(B, T, d)` (`Readout.states`).
        theirs: those of the compressed model.

    Returns:
        The means over each row's `T − 1` predicted tokens.

    Raises:
        ModelError: a model computed NaN.
    """
    rows, targets = len(ids), ids[:, 1:].flatten()  # (B (T - 1),)
    numbers = torch.empty(4, len(targets), dtype=torch.float64)
    pieces = (readout(lm).logits(states[:, :-1].flatten(0, 1)) for lm, states in ((dense, ours), (compressed, theirs)))
    for (part, left), (_, right) in zip(*pieces, strict=True):  # (p, V) each
        numbers[:, part] = _compared(left, right.to(left.device), targets[part].to(left.device)).cpu()
    for lm, surprise in ((dense, numbers[2]), (compressed, numbers[3])):
        if torch.isnan(surprise).any():
            raise broken_numbers(lm, "NaN instead of probabilities")
    return Predictions(*numbers.view(4, rows, -1).mean(-1))


def _compared(left: Tensor, right: Tensor, targets: Tensor) -> Tensor:
    """Divergence, agreement and both surprises of `(p, V)` and `(p, V)` at `(p,)`: `(4, p)`."""
    p, q = left.log_softmax(-1), right.log_softmax(-1)  # (p, V)
    kl = (
        (p.exp() * (p - q)).nan_to_num_(nan=0.0, posinf=torch.inf).sum(-1)
    )  # what has no probability adds nothing, be it 0 · ∞
    same = p.argmax(-1) == q.argmax(-1)
    chosen = [log.gather(-1, targets[:, None])[:, 0] for log in (p, q)]
    return torch.stack([kl.double(), same.double(), -chosen[0].double(), -chosen[1].double()])
