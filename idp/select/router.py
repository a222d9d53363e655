"""The default selector: a linear map from the mean input embedding, trained on what each prompt costs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from idp.bank.state import SelectorState
from idp.errors import SelectorError
from idp.select.base import Calibration, Needs, Selection, Selector, pick
from idp.select.features import mean_embeddings

__all__ = ["RouterSelector"]

_LOG = logging.getLogger(__name__)

_L2_GRID = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
_FOLDS = 5
_MIN_TO_HOLD_OUT = 20
_ITERATIONS = 200


@dataclass(frozen=True)
class _Linear:
    """Standardise, then a linear map: `W ((x - mean) / std) + b`."""

    weight: Tensor  # (m + 1, d)
    bias: Tensor  # (m + 1,)
    mean: Tensor  # (d,)
    std: Tensor  # (d,)

    def logits(self, features: Tensor) -> Tensor:
        """Map features `(N, d)` to logits `(N, m + 1)`; a row of NaN (an empty input) counts as average."""
        standard = torch.nan_to_num((features - self.mean) / self.std)  # (N, d)
        return standard @ self.weight.T + self.bias


class RouterSelector(Selector):
    """Choose the arm with the largest `W e(x) + b`, where `e(x)` is the mean input embedding.

    `W` and `b` minimise the expected loss of a choice drawn from the router over the calibration inputs,

        mean_x sum_i softmax(W e(x) + b)_i L[x, i] + l2 |W|^2 ,

    with the measured loss `L[x, i]` of input `x` under arm `i`, "no prompt" being the last arm. So a mistake counts
    by what it costs, and inputs for which every prompt does equally well count nothing. Features are standardised;
    losses are divided by their spread between arms, so that `l2` means the same for every model and task. `l2` is
    the one whose choices lose least on a held-out fifth of the different inputs; the map is then fitted on all.

    Scores: the softmax, `m + 1` probabilities.

    Args:
        seed: which fifth is held out.
        l2: weight of the penalty; None chooses it.

    Raises:
        SelectorError: `l2` is negative.

    Source: the expected loss of a stochastic policy, known from full-information counterfactual learning
    (arXiv 1502.02362); that it finds the domain without being told is this project's own finding.

    Example:
        >>> router = RouterSelector(seed=0).fit(bank, lm, calibration)  # doctest: +SKIP
        >>> [choice.index for choice in router.select_batch([[5, 6], [7]])]  # doctest: +SKIP
        [2, -1]
    """

    name: ClassVar[str] = "router"

    def __init__(self, *, seed: int = 0, l2: float | None = None) -> None:
        """Check and keep the options."""
        if l2 is not None and not l2 >= 0:
            raise SelectorError(f"l2 is a penalty of at least 0, not {l2}.")
        self.seed = seed
        self.l2 = l2
        self._linear: _Linear | None = None

    @property
    def needs(self) -> Needs:
        """Losses: the router learns what each choice costs."""
        return "losses"

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose the most probable arm of each input."""
        if self._linear is None:
            raise SelectorError("selector 'router' was not fitted: call fit or load_state first.")
        return pick(self._linear.logits(mean_embeddings(self.lm, inputs)).softmax(dim=-1))

    def _fit(self, calibration: Calibration | None) -> None:
        assert calibration is not None  # noqa: S101  (fit has checked it)
        losses = _unit_losses(calibration.require_losses(len(self.bank)))  # (N, m + 1)
        features = mean_embeddings(self.lm, calibration.inputs)  # (N, d)
        l2 = self.l2 if self.l2 is not None else _choose_l2(features, losses, calibration.folds(_FOLDS, self.seed))
        self._linear = _train(features, losses, l2)
        _LOG.info("router fitted on %d inputs with l2 %g", len(losses), l2)

    def _state(self) -> SelectorState:
        if self._linear is None:
            raise SelectorError("selector 'router' was not fitted, so it has no state to keep.")
        return SelectorState({"seed": self.seed, "features": "mean_embedding"}, vars(self._linear))

    def _load(self, state: SelectorState) -> None:
        linear = _Linear(**state.tensors)
        arms, width = len(self.bank) + 1, self.lm.hidden_size
        shapes = [tuple(value.shape) for value in vars(linear).values()]
        if shapes != [(arms, width), (arms,), (width,), (width,)]:
            raise ValueError(f"tensors of shapes {shapes} for {arms} arms and width {width}")
        self._linear = linear


def _unit_losses(losses: Tensor) -> Tensor:
    """Take from each row its mean, which no choice changes, and divide by the spread that is left; `(N, m + 1)`."""
    centred = losses - losses.mean(dim=1, keepdim=True)
    return centred / centred.square().mean().sqrt().clamp_min(torch.finfo(torch.float64).tiny ** 0.5)


def _choose_l2(features: Tensor, losses: Tensor, folds: Tensor) -> float:
    """Return the penalty whose hard choices lose least on a held-out fifth; of equals, the strongest."""
    held_out = folds == 0  # (N,)
    if len(losses) < _MIN_TO_HOLD_OUT or not 0 < int(held_out.sum()) < len(losses):
        return _L2_GRID[-1]
    costs = {
        l2: _choice_loss(_train(features[~held_out], losses[~held_out], l2), features[held_out], losses[held_out])
        for l2 in _L2_GRID
    }
    _LOG.debug("held-out loss by l2: %s", costs)
    return min(costs, key=lambda l2: (costs[l2], -l2))


def _choice_loss(linear: _Linear, features: Tensor, losses: Tensor) -> float:
    choices = linear.logits(features).argmax(dim=1, keepdim=True)  # (N, 1)
    return float(losses.gather(1, choices).mean())


def _train(features: Tensor, losses: Tensor, l2: float) -> _Linear:
    """Minimise the expected loss from zero with full-batch L-BFGS, which draws nothing at random."""
    known = features[~features.isnan().any(dim=1)]
    mean = known.mean(dim=0) if len(known) else torch.zeros_like(features[0])  # (d,)
    std = known.std(dim=0, correction=0) if len(known) else torch.ones_like(features[0])  # (d,)
    std = torch.where(std > 1e-12, std, torch.ones_like(std))
    standard = torch.nan_to_num((features - mean) / std)  # (N, d)
    weight = torch.zeros(losses.shape[1], features.shape[1], dtype=torch.float64, requires_grad=True)  # (m + 1, d)
    bias = torch.zeros(losses.shape[1], dtype=torch.float64, requires_grad=True)  # (m + 1,)
    _minimise(weight, bias, standard, losses, l2)
    return _Linear(weight.detach(), bias.detach(), mean, std)


def _minimise(weight: Tensor, bias: Tensor, features: Tensor, losses: Tensor, l2: float) -> None:
    # The bias is held by a thousandth of a weight: without any penalty it would grow for ever.
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        chosen = (features @ weight.T + bias).softmax(dim=-1)  # (N, m + 1)
        objective = (chosen * losses).sum(dim=-1).mean()
        objective = objective + l2 * weight.square().sum() + 1e-3 * l2 * bias.square().sum()
        torch.autograd.backward(objective)
        return objective

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
