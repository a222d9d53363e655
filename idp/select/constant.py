"""Selectors that choose the same for every input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from idp.bank.state import SelectorState
from idp.errors import SelectorError
from idp.select.base import Needs, Selection, Selector, pick
from idp.select.calibration import Calibration
from idp.select.groups import group_means

__all__ = ["NoneSelector", "StaticSelector"]


class NoneSelector(Selector):
    """Never a prompt: the compressed model as it is. The one selector that works without a bank.

    Scores: 1 for "no prompt", 0 for every prompt.

    Example:
        >>> NoneSelector().fit(bank, lm).select([5, 6]).index  # doctest: +SKIP
        -1
    """

    name: ClassVar[str] = "none"

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose "no prompt" for each input."""
        prompts = 0 if self._bank is None else len(self._bank)
        choice = Selection(-1, 1.0, (0.0,) * prompts + (1.0,))
        return [choice] * len(inputs)


class StaticSelector(Selector):
    """Always the arm, "no prompt" among them, with the lowest mean loss over the calibration inputs.

    Scores: minus that mean loss, in the losses' unit. With groups, every group counts the same, however many of
    the inputs it has.

    Example:
        >>> StaticSelector().fit(bank, lm, calibration).select([5, 6]).index  # doctest: +SKIP
        2
    """

    name: ClassVar[str] = "static"

    def __init__(self) -> None:
        """Start without knowing the best arm."""
        self._scores: Tensor | None = None  # (m + 1,)

    @property
    def needs(self) -> Needs:
        """Losses: the best arm is measured."""
        return "losses"

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose the best arm for each input."""
        if self._scores is None:
            raise SelectorError("selector 'static' was not fitted: call fit or load_state first.")
        return pick(self._scores[None]) * len(inputs)

    def _fit(self, calibration: Calibration | None) -> None:
        assert calibration is not None  # noqa: S101  (fit has checked it)
        losses = calibration.require_losses(len(self.bank))  # (N, m + 1)
        means = group_means(losses, calibration.groups or [""] * len(losses))
        self._scores = -torch.stack([*means.values()]).mean(dim=0)  # (m + 1,), every group weighs the same

    def _state(self) -> SelectorState:
        if self._scores is None:
            raise SelectorError("selector 'static' was not fitted, so it has no state to keep.")
        return SelectorState(tensors={"scores": self._scores})

    def _load(self, state: SelectorState) -> None:
        scores = state.tensors["scores"]
        if scores.shape != (len(self.bank) + 1,):
            raise ValueError(f"scores of shape {tuple(scores.shape)} for a bank of {len(self.bank)}")
        self._scores = scores
