"""The default selector: a linear map from features of the input, trained on what each prompt costs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from idp.bank.state import SelectorState
from idp.errors import ModelError, SelectorError
from idp.model.view import num_layers, shallow
from idp.select.base import Needs, Selection, Selector, check_option, pick
from idp.select.calibration import Calibration
from idp.select.features import mean_embeddings
from idp.select.linear import Linear, fit_costs, fit_labels, unit_losses
from idp.select.states import shallow_states

__all__ = ["RouterSelector"]

_LOG = logging.getLogger(__name__)

_L2_GRID = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 10.0)
_FOLDS = 5
_MIN_TO_HOLD_OUT = 20
_KEPT = {"embedding": "mean_embedding", "state": "state"}
"""What features are called in a state."""


class RouterSelector(Selector):
    """Choose the arm with the largest `W e(x) + b`, where `e(x)` is the mean input embedding, or a hidden state.

    `W` and `b` minimise the expected loss of a choice drawn from the router over the calibration inputs,

        mean_x sum_i softmax(W e(x) + b)_i L[x, i] + l2 |W - W0|^2 ,

    with the measured loss `L[x, i]` of input `x` under arm `i`, "no prompt" being the last arm. So a mistake counts
    by what it costs, and inputs for which every prompt does equally well count nothing. Features are standardised;
    losses are divided by their spread between arms, so that `l2` means the same for every model and task. `l2` is
    the strongest whose choices do as well as any on a held-out fifth of the different inputs, up to one standard error;
    the map is then fitted on all.

    `W0`, from which the descent also starts, is zero, or where the calibration hints at the prompt that was tuned for
    each input, a logistic regression on these hints. Single losses are noisy: from zero, with 22 arms and 12,700
    questions, the map hardly left the static prompt, though a prompt chosen by its part costs less.

    With `features="state"` the input is run through the first layers without a prompt, and `e(x)` is the hidden state
    of its last token, which tells what is asked and not only in which words. It costs these layers once more: behind a
    prompt every state is another one.

    Scores: the softmax, `m + 1` probabilities.

    Args:
        seed: which fifth is held out.
        l2: weight of the penalty; None chooses it.
        features: `embedding` or `state`.
        layer: behind how many layers the state is taken; 0 is half of them.

    Raises:
        SelectorError: `l2` is negative, unknown features, or on fitting a layer that the model does not have.

    Source: the expected loss of a stochastic policy, known from full-information counterfactual learning
    (arXiv 1502.02362); that it finds the domain without being told is this project's own finding.

    Example:
        >>> router = RouterSelector(seed=0).fit(bank, lm, calibration)  # doctest: +SKIP
        >>> [choice.index for choice in router.select_batch([[5, 6], [7]])]  # doctest: +SKIP
        [2, -1]
    """

    name: ClassVar[str] = "router"
    probabilities: ClassVar[bool] = True

    def __init__(self, *, seed: int = 0, l2: float | None = None, features: str = "embedding", layer: int = 0) -> None:
        """Check and keep the options."""
        check_option(self.name, "features", features, ("embedding", "state"))
        if l2 is not None and not l2 >= 0:
            raise SelectorError(f"l2 is a penalty of at least 0, not {l2}.")
        self.seed = seed
        self.l2 = l2
        self.features, self.layer = features, layer
        self._linear: Linear | None = None
        self._decoder: nn.Module | None = None  # of the first layers, where their states are the features

    @property
    def needs(self) -> Needs:
        """Losses: the router learns what each choice costs."""
        return "losses"

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose the most probable arm of each input."""
        if self._linear is None:
            raise SelectorError("selector 'router' was not fitted: call fit or load_state first.")
        return pick(self._linear.logits(self._features(inputs)).softmax(dim=-1))

    @property
    def forwards(self) -> float:
        """The share of the layers that is run for the features."""
        return 0.0 if self.features == "embedding" else self._layers / num_layers(self.lm)

    @property
    def _layers(self) -> int:
        return self.layer or max(1, num_layers(self.lm) // 2)

    def _features(self, inputs: Sequence[Sequence[int]]) -> Tensor:
        """Features of inputs, `(N, d)`; NaN for an empty one."""
        if self.features == "embedding":
            return mean_embeddings(self.lm, inputs)
        if self._decoder is None:
            self._decoder = self._view()
        found = torch.full((len(inputs), self.lm.hidden_size), torch.nan, dtype=torch.float64)
        rows = [row for row, ids in enumerate(inputs) if len(ids)]
        found[rows] = shallow_states(self.lm, self._decoder, [inputs[row] for row in rows])
        return found

    def _view(self) -> nn.Module:
        try:
            return shallow(self.lm, self._layers)
        except ModelError as error:
            raise SelectorError(f"selector 'router' cannot take states as features: {error}") from error

    def _fit(self, calibration: Calibration | None) -> None:
        assert calibration is not None  # noqa: S101  (fit has checked it)
        losses = unit_losses(calibration.require_losses(len(self.bank)))  # (N, m + 1)
        self._decoder = None  # of another model, maybe
        features = self._features(calibration.inputs)  # (N, d)
        hints = calibration.hinted_arms(len(self.bank))
        l2 = self.l2
        if l2 is None:
            l2 = _choose_l2(features, losses, hints, calibration.folds(_FOLDS, self.seed))
        self._linear = fit_costs(_start(features, losses, hints), features, losses, l2)
        _LOG.info("router fitted on %d inputs with l2 %g", len(losses), l2)

    def _state(self) -> SelectorState:
        if self._linear is None:
            raise SelectorError("selector 'router' was not fitted, so it has no state to keep.")
        features = {"features": _KEPT[self.features], "layer": self.layer}
        return SelectorState({"seed": self.seed, **features}, vars(self._linear))

    def _load(self, state: SelectorState) -> None:
        linear = Linear(**state.tensors)
        arms, width = len(self.bank) + 1, self.lm.hidden_size
        shapes = [tuple(value.shape) for value in vars(linear).values()]
        if shapes != [(arms, width), (arms,), (width,), (width,)]:
            raise ValueError(f"tensors of shapes {shapes} for {arms} arms and width {width}")
        self._linear, self._decoder = linear, None
        self.features = {kept: name for name, kept in _KEPT.items()}[state.config["features"]]
        self.layer = state.config.get("layer", 0)


def _start(features: Tensor, losses: Tensor, hints: Tensor | None) -> Linear:
    """The map to start from and to be held to."""
    arms = losses.shape[1]
    return Linear.zero(features, arms) if hints is None else fit_labels(features, hints, arms)


def _choose_l2(features: Tensor, losses: Tensor, hints: Tensor | None, folds: Tensor) -> float:
    """Return the strongest penalty whose hard choices lose, on a held-out fifth, no more than the best one's.

    Up to one standard error of the paired difference (Breiman et al. 1984, section 3.4.3): noise is no reason to leave
    the start.
    """
    held_out = folds == 0  # (N,)
    if len(losses) < _MIN_TO_HOLD_OUT or not 0 < int(held_out.sum()) < len(losses):
        return _L2_GRID[-1]
    inside, outside = features[~held_out], features[held_out]
    start = _start(inside, losses[~held_out], None if hints is None else hints[~held_out])
    fits = [fit_costs(start, inside, losses[~held_out], l2) for l2 in _L2_GRID]
    costs = torch.stack([_choice_losses(fit, outside, losses[held_out]) for fit in fits])  # (grid, n)
    excess = costs - costs[costs.mean(dim=1).argmin()]  # (grid, n)
    error = excess.std(dim=1, correction=0) / excess.shape[1] ** 0.5  # (grid,)
    _LOG.debug("held-out loss by l2: %s", dict(zip(_L2_GRID, costs.mean(dim=1).tolist(), strict=True)))
    return max(l2 for l2, good in zip(_L2_GRID, excess.mean(dim=1) <= error, strict=True) if good)


def _choice_losses(linear: Linear, features: Tensor, losses: Tensor) -> Tensor:
    choices = linear.logits(features).argmax(dim=1, keepdim=True)  # (N, 1)
    return losses.gather(1, choices)[:, 0]  # (N,)
