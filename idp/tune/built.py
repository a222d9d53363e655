"""What building a bank came to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.bank.state import SelectorState
from idp.select.calibration import Calibration
from idp.select.registry import get_selector
from idp.tune.fitting import cost
from idp.tune.loop import Point
from idp.tune.parts import Parts
from idp.tune.prune import Pruned

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Built"]


@dataclass(frozen=True, eq=False)
class Built:
    """What building came to.

    Attributes:
        bank: the prompts with their fitted selectors.
        starts: what the static prompts were started from, by the names in their provenance.
        curves: tuning curve of every prompt, by round for those of parts.
        calibration: what the selectors were fitted on.
        costs: for each way of choosing the loss of each held-out example, `(N,)` (`cross_fitted_losses`).
        parts: the rounds, None where there were no parts.
        pruned: how many prompts were needed, None likewise.
    """

    bank: PromptBank
    starts: list[Prompt]
    curves: dict[str, list[Point]]
    calibration: Calibration
    costs: dict[str, Tensor]
    parts: Parts | None = None
    pruned: Pruned | None = None

    @property
    def updates(self) -> int:
        """Updates of single prompts in all."""
        return sum(curve[-1].step for curve in self.curves.values())

    def with_selector(self, name: str, state: SelectorState, lm: LanguageModel) -> Built:
        """The same with one more selector, fitted elsewhere, and what its choices cost here."""
        bank = self.bank.with_selector(name, state)
        selector = get_selector(name).load_state(state, bank, lm)
        losses = cost(selector, self.calibration.inputs, self.calibration.require_losses(len(bank)))  # (N,)
        return replace(self, bank=bank, costs={name: losses, **self.costs})

    def means(self) -> dict[str, float]:
        """Mean loss of the held-out examples by way of choosing; selectors are fitted on the other half of them."""
        columns = dict(self.costs)
        bound = columns.pop("oracle")
        hinted = self.calibration.hinted_arms(len(self.bank))
        if hinted is not None:
            losses = self.calibration.require_losses(len(self.bank))  # (N, m + 1)
            columns["prompt of its part"] = losses.gather(1, hinted[:, None])[:, 0]
        columns["oracle (a bound)"] = bound
        return {name: float(losses.mean()) for name, losses in columns.items()}
