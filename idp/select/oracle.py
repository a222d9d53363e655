"""The best prompt of every input in hindsight: a bound for all selectors, not a way to answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from idp.errors import SelectorError
from idp.select.base import Needs, Selection, Selector, pick
from idp.select.calibration import Calibration

__all__ = ["OracleSelector"]


class OracleSelector(Selector):
    """Choose the arm with the lowest loss among those measured for this very input.

    It knows the inputs that it was fitted on and no others, which makes it the bound that selectors are measured by.
    Equal inputs get one choice, by their mean loss. What it knows is not kept in banks.

    Scores: minus the loss. Where "no prompt" is as good as the best prompt, it is chosen: nothing is cheaper.

    Raises:
        SelectorError: on choosing, an input that it was not fitted on.

    Example:
        >>> OracleSelector().fit(bank, lm, calibration).select(calibration.inputs[0]).index  # doctest: +SKIP
        2
    """

    name: ClassVar[str] = "oracle"

    def __init__(self) -> None:
        """Start without knowing any input."""
        self._rows: dict[tuple[int, ...], int] = {}
        self._scores = torch.empty(0, 0, dtype=torch.float64)  # (distinct, m + 1)

    @property
    def needs(self) -> Needs:
        """Losses, of the very inputs that it will be asked about."""
        return "losses"

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Look the inputs up."""
        scores = self._scores[[self._row(ids) for ids in inputs]]  # (N, m + 1)
        free = scores[:, -1] >= scores.amax(dim=1) if len(scores) else scores[:, 0]  # (N,)
        return [
            Selection(-1, choice.scores[-1], choice.scores) if none else choice
            for choice, none in zip(pick(scores), free.tolist(), strict=True)
        ]

    def _row(self, ids: Sequence[int]) -> int:
        row = self._rows.get(tuple(ids))
        if row is None:
            raise SelectorError(
                f"selector 'oracle' knows only the {len(self._rows)} inputs that it was fitted on, and not this one of "
                f"{len(ids)} tokens."
            )
        return row

    def _fit(self, calibration: Calibration | None) -> None:
        assert calibration is not None  # noqa: S101  (fit has checked it)
        known = calibration.distinct()
        self._rows = {tuple(ids): row for row, ids in enumerate(known.inputs)}
        self._scores = -known.require_losses(len(self.bank))
