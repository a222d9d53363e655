"""Two selectors, of which the costly one is asked only where the cheap one is unsure."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.state import SelectorState
from idp.errors import SelectorError
from idp.model.loaded import LanguageModel
from idp.select.base import Cost, Needs, Selection, Selector, chosen_losses
from idp.select.calibration import Calibration, Options
from idp.select.registry import get_selector

__all__ = ["CascadeSelector"]

_LOG = logging.getLogger(__name__)

_FOLDS = 5
_STRENGTH: tuple[Needs, ...] = ("nothing", "inputs", "losses")
_STAGES = ("first", "then")


@dataclass(frozen=True)
class _Cut:
    """Where a cascade passes on.

    Attributes:
        threshold: the largest margin that is passed on.
        share: of the inputs it was found on, how many that are.
        by_losses: whether right answers had a say.
    """

    threshold: float
    share: float
    by_losses: bool


class CascadeSelector(Selector):
    """Take the choice of a cheap selector, and where it is unsure that of a costly one.

    Unsure means a small margin between the best and the second best score, in the first selector's own unit:

        margin(x) = s_1(x) - s_2(x) <= threshold .

    The threshold is fitted so that `share` of the calibration inputs are passed on. Where the calibration has losses,
    fewer are, if that costs less: of all shares up to `share` the one with the lowest loss, the smallest of equals.
    That may be none, which is logged; the second selector is then never asked.

    A selector that the bank holds a state of (by the spec given) is taken as it is. One that learns is fitted on the
    calibration, and the threshold found on a held-out fifth of the different inputs by copies fitted on the others.

    Scores: those of the selector that decided, so they have two units where the two selectors differ.

    Args:
        first: the cheap selector, with options if wanted; on a command line in square brackets:
            `cascade:first=[router:features=state],then=[likelihood:score=mdl]`.
        then: the costly one. Either may be a cascade.
        share: of the inputs, the most that are passed on, 0 to 1.
        seed: which fifth is held out, and the seed of both.

    Raises:
        SelectorError: an unknown selector or option, or a share out of range; on fitting, a calibration that lacks
            what either needs.

    Source: rejection by a threshold on the margin; known from cascades of classifiers (Viola and Jones 2001) and of
        language models (FrugalGPT, arXiv 2305.05176).

    Example:
        >>> cascade = CascadeSelector(first="router", then="likelihood").fit(bank, lm, calibration)  # doctest: +SKIP
        >>> cascade.forwards  # of 17 passes, for a quarter of the inputs  # doctest: +SKIP
        4.25
    """

    name: ClassVar[str] = "cascade"

    def __init__(self, *, first: str = "router", then: str = "likelihood", share: float = 0.25, seed: int = 0) -> None:
        """Make both selectors, so that a wrong option is found at once."""
        if not 0 <= share <= 1:
            raise SelectorError(f"share is a part of the inputs, 0 to 1, and not {share}.")
        self.first, self.then, self.share, self.seed = str(first), str(then), share, seed
        self._stages = self._made()
        self._cut: _Cut | None = None

    def _made(self) -> tuple[Selector, Selector]:
        return get_selector(self.first, seed=self.seed), get_selector(self.then, seed=self.seed)

    @property
    def needs(self) -> Needs:
        """What either needs, and inputs at least."""
        return _strongest(["inputs", *(stage.needs for stage in self._stages)])

    def needs_for(self, bank: PromptBank) -> Needs:
        """Less where the bank holds either's state."""
        pairs = zip((self.first, self.then), self._stages, strict=True)
        return _strongest(["inputs", *(stage.needs_for(bank) for spec, stage in pairs if spec not in bank.selectors)])

    def require(self, lm: LanguageModel) -> None:
        """Find out whether both can work with a model."""
        for stage in self._stages:
            stage.require(lm)

    @property
    def forwards(self) -> float:
        """The first selector's passes, and the second one's for the share that it is asked about."""
        first, then = self._stages
        return first.forwards + (self._fitted().share * then.forwards)

    @property
    def answers(self) -> bool:
        """Whether either looks at them."""
        return any(stage.answers for stage in self._stages)

    @property
    def cost(self) -> Cost:
        """What choosing takes; losses that only had a say in the threshold count as labels."""
        return replace(super().cost, labels=self.needs == "losses" or self._fitted().by_losses)

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose for inputs whose possible answers are not known."""
        return self.select_among(inputs, [()] * len(inputs))

    def select_among(self, inputs: Sequence[Sequence[int]], options: Sequence[Options]) -> list[Selection]:
        """Choose for inputs with the possible answers of each, which go to both selectors."""
        threshold, (first, then) = self._fitted().threshold, self._stages
        chosen = first.select_among(inputs, options)
        unsure = (_margins(chosen) <= threshold).nonzero()[:, 0].tolist()
        if unsure:
            asked = then.select_among([inputs[row] for row in unsure], [options[row] for row in unsure])
            for row, choice in zip(unsure, asked, strict=True):
                chosen[row] = choice
        return chosen

    def _fitted(self) -> _Cut:
        if self._cut is None:
            raise SelectorError("selector 'cascade' was not fitted: call fit or load_state first.")
        return self._cut

    def _fit(self, calibration: Calibration | None) -> None:
        assert calibration is not None  # noqa: S101  (fit has checked it: it needs inputs)
        self._stages = self._ready(calibration)
        inside, outside = _halves(calibration, self.seed) if self._learns else (None, calibration)
        self._cut = self._found(self._ready(inside) if inside else self._stages, outside)
        _LOG.info("%s passes on %.0f %% of the inputs to %s", self.first, 100 * self._cut.share, self.then)
        if self.share and not self._cut.share:
            _LOG.warning("the cascade never asks %s: no share of the inputs costs less where it chooses", self.then)

    @property
    def _learns(self) -> bool:
        """Whether either is fitted on the calibration."""
        pairs = zip((self.first, self.then), self._stages, strict=True)
        return any(spec not in self.bank.selectors and each.needs_for(self.bank) != "nothing" for spec, each in pairs)

    def _ready(self, calibration: Calibration) -> tuple[Selector, Selector]:
        """Both selectors as the bank holds them, or fitted."""

        def ready(spec: str, stage: Selector) -> Selector:
            if spec in self.bank.selectors:
                return stage.load_state(self.bank.selectors[spec], self.bank, self.lm)
            return stage.fit(self.bank, self.lm, calibration)

        first, then = self._made()
        return ready(self.first, first), ready(self.then, then)

    def _found(self, stages: tuple[Selector, Selector], calibration: Calibration) -> _Cut:
        """Fit the threshold."""
        first, then = stages
        inputs, options = calibration.inputs, calibration.options or [()] * len(calibration.inputs)
        chosen = first.select_among(inputs, options)
        margins, order = _margins(chosen).sort(stable=True)  # (N,), (N,)
        counts = _countable(margins, round(self.share * len(inputs)))
        best, by_losses = counts[-1], calibration.losses is not None and counts[-1] > 0
        if by_losses:
            rows = order[:best].tolist()
            others = then.select_among([inputs[row] for row in rows], [options[row] for row in rows])
            losses = calibration.require_losses(len(self.bank))[rows]  # (best, m + 1)
            changes = chosen_losses(others, losses) - chosen_losses([chosen[row] for row in rows], losses)  # (best,)
            totals = [0.0, *changes.cumsum(dim=0).tolist()]
            best = min(counts, key=totals.__getitem__)
        return _Cut(_between(margins, best), best / len(inputs), by_losses)

    def _state(self) -> SelectorState:
        cut, config, tensors = self._fitted(), dict[str, Any](), dict[str, Tensor]()
        for name, stage in zip(_STAGES, self._stages, strict=True):
            state = stage.state()
            config[name] = state.config
            tensors |= {f"{name}.{key}": tensor for key, tensor in state.tensors.items()}
        options = {"specs": [self.first, self.then], "share": self.share, "seed": self.seed}
        found = {"passed_on": cut.share, "by_losses": cut.by_losses}
        return SelectorState({**options, **found, **config}, {**tensors, "threshold": torch.tensor(cut.threshold)})

    def _load(self, state: SelectorState) -> None:
        config = state.config
        (first, then), share, seed = config["specs"], config["share"], config["seed"]
        kept = CascadeSelector(first=first, then=then, share=share, seed=seed)
        cut = _Cut(float(state.tensors["threshold"]), float(config["passed_on"]), bool(config["by_losses"]))
        for name, stage in zip(_STAGES, kept._stages, strict=True):
            tensors = {key.partition(".")[2]: each for key, each in state.tensors.items() if key.startswith(f"{name}.")}
            stage.load_state(SelectorState(config[name], tensors), self.bank, self.lm)
        self.first, self.then, self.share, self.seed = kept.first, kept.then, kept.share, kept.seed
        self._stages, self._cut = kept._stages, cut


def _strongest(needs: Sequence[Needs]) -> Needs:
    return max(needs, key=_STRENGTH.index)


def _margins(chosen: Sequence[Selection]) -> Tensor:
    """Distance of the best score from the second best, `(N,)`: 0 for equal ones, though they be infinite."""
    pairs = [sorted(choice.scores)[-2:] for choice in chosen]
    margins = [best - second if best > second else 0.0 for second, best in pairs]
    return torch.tensor(margins, dtype=torch.float64)


def _halves(calibration: Calibration, seed: int) -> tuple[Calibration | None, Calibration]:
    """What copies are fitted on, and what they are judged by; too few inputs to cut are not cut."""
    held_out = calibration.folds(_FOLDS, seed) == 0  # (N,)
    if bool(held_out.all()) or not bool(held_out.any()):
        return None, calibration
    inside, outside = (calibration.rows(part.nonzero()[:, 0].tolist()) for part in (~held_out, held_out))
    return inside, outside


def _countable(margins: Tensor, most: int) -> list[int]:
    """How many inputs a threshold can pass on, up to `most`: equal margins are passed on together."""
    values = margins.tolist()
    return [0, *(count for count in range(1, most + 1) if count == len(values) or values[count - 1] < values[count])]


def _between(margins: Tensor, count: int) -> float:
    """A threshold that the first `count` of sorted margins do not exceed, and no others: half-way where that exists."""
    if count in (0, len(margins)):
        return math.inf if count else -math.inf
    low, high = float(margins[count - 1]), float(margins[count])
    return (low + high) / 2 if math.isfinite(high) else low
