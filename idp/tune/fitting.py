"""Fitting the selectors that a tuned bank carries, and an honest estimate of what they will cost."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.errors import SelectorError, TaskError
from idp.select.attention import AttentionSelector
from idp.select.base import Selector, chosen_losses
from idp.select.calibration import Calibration
from idp.select.registry import get_selector

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["FITTED", "cost", "cross_fitted_losses", "with_fitted_selectors"]

_LOG = logging.getLogger(__name__)

FITTED = ("static", "attention:calibrate=center", "attention:calibrate=zscore", "router", "router:features=state")
"""What a built bank carries, each under its name in the bank."""


def with_fitted_selectors(bank: PromptBank, lm: LanguageModel, calibration: Calibration, seed: int = 0) -> PromptBank:
    """Fit every selector of `FITTED` on all of the calibration, and return the bank that keeps them.

    One that does not know the model's architecture is left out, with a warning.
    """
    for name in _usable(lm):
        bank = bank.with_selector(name, get_selector(name, seed=seed).fit(bank, lm, calibration).state())
    return bank


def _usable(lm: LanguageModel) -> list[str]:
    """The names in `FITTED`, without those that cannot look into a model of this kind."""
    usable = []
    for name in FITTED:
        try:
            get_selector(name).require(lm)
            usable.append(name)
        except SelectorError as error:
            _LOG.warning("%s is left out: %s", name, error)
    return usable


def cross_fitted_losses(
    bank: PromptBank, lm: LanguageModel, calibration: Calibration, seed: int, folds: int
) -> dict[str, Tensor]:
    """Measure what each selector's choices cost on inputs it was not fitted on.

    Every fold of the different inputs is chosen for by selectors fitted on the others.

    Args:
        bank: the prompts.
        lm: the model.
        calibration: inputs and losses; `N` inputs, at least one different input a fold.
        seed: of the folds and the selectors.
        folds: how many parts.

    Returns:
        For `none`, the paper's `attention` rule (where the model allows it), every name in `FITTED`, and `oracle` (the
        lowest loss in hindsight, a bound): the loss of the chosen arm for each input, `(N,)`.

    Raises:
        TaskError: fewer different inputs than folds, or less than two folds.
        SelectorError: the calibration has no losses.
    """
    distinct = len({tuple(ids) for ids in calibration.inputs})
    if not 2 <= folds <= distinct:
        raise TaskError(f"cannot cut {distinct} different calibration inputs into {folds} folds.")
    losses = calibration.require_losses(len(bank))  # (N, m + 1)
    inputs = list(calibration.inputs)
    usable = _usable(lm)
    costs = {"none": losses[:, -1]}
    if "attention:calibrate=center" in usable:
        costs["attention"] = cost(AttentionSelector().fit(bank, lm), inputs, losses)
    costs |= {name: torch.empty(len(inputs), dtype=torch.float64) for name in usable}
    parts = calibration.folds(folds, seed)  # (N,)
    for fold in range(folds):
        inside = (parts == fold).nonzero()[:, 0].tolist()
        rest = calibration.rows((parts != fold).nonzero()[:, 0].tolist())
        for name in usable:
            selector = get_selector(name, seed=seed).fit(bank, lm, rest)
            costs[name][inside] = cost(selector, [inputs[i] for i in inside], losses[inside])
    return costs | {"oracle": losses.min(dim=1).values}


def cost(selector: Selector, inputs: Sequence[Sequence[int]], losses: Tensor) -> Tensor:
    """Losses of the chosen arms, `(N,)`; index -1 is the last column, "no prompt"."""
    return chosen_losses(selector.select_batch(inputs), losses)
