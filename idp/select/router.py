"""The default selectors: maps from features of the input, trained on what each prompt costs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from idp.bank.state import SelectorState
from idp.errors import SelectorError
from idp.model.loaded import LanguageModel
from idp.select.base import Needs, Selection, Selector, check_option, pick
from idp.select.calibration import Calibration
from idp.select.knowledge import Knowledge, check_features
from idp.select.linear import OBJECTIVES, Linear, unit_losses
from idp.select.sentences import SENTENCE_MODEL
from idp.select.training import ALWAYS, Lesson, Training, with_margin
from idp.select.typical import Typical

__all__ = ["RouterSelector"]

_LOG = logging.getLogger(__name__)

_FOLDS = 5
_TYPICAL = "typical."
_OLD_NAMES = {"mean_embedding": "embedding"}
"""What features were called in states that are still about."""


class RouterSelector(Selector):
    """Choose the arm with the largest logit of `W z(x) + b`, `z(x)` being standardised features of the input.

    `W` and `b` minimise the expected loss of a choice drawn from the router over the calibration inputs,

        mean_x sum_i softmax(W z(x) + b)_i L[x, i] + l2 |W - W0|^2 ,

    with the measured loss `L[x, i]` of input `x` under arm `i`, "no prompt" being the last arm. So a mistake counts
    by what it costs, and inputs for which every prompt does equally well count nothing. Losses are divided by their
    spread between arms, so that `l2` means the same for every model and task. `l2` is the strongest whose choices do as
    well as any on a held-out fifth of the different inputs, up to one standard error; the map is then fitted on all.

    `W0`, from which the descent also starts, is a logistic regression on the calibration's hints at the prompt that was
    tuned for each input. Where there are no hints it is zero or what a teacher believes, unless that loses more. The
    teacher is a router of its own on features that are dear to compute, by default the hidden state of the last token
    half-way up the model, which tells what is asked and not only in which words. It is run while fitting only.

    Two things make it do no harm. "No prompt" is given a margin more if choices are better so on the held-out fifth,
    up to choosing nothing else, which is said in the log. And an input that is stranger than all that were seen (code,
    another language) gets no prompt.

    Scores: the softmax, `m + 1` probabilities.

    Args:
        seed: which fifth is held out, and where a hidden layer begins.
        l2: weight of the penalty; None chooses it.
        features: `embedding` (the mean input embedding, free), `state` (a hidden state half-way up; `state3`: behind
            layer 3; costs these layers, for the last 128 tokens at most), `sentence` (of a sentence-transformers
            model), or several joined by `+`.
        teacher: features of the teacher, where there are no hints; `none` for none; `auto` is `state` for a router on
            `embedding` alone where the model's layers can be run by themselves, and none for any other.
        hidden: width of a hidden layer, 0 for none.
        objective: `expected` (above), or `ranking`: the softmax is to rank the arms as their losses do.
        price: what a token of a prompt costs, in units of the loss; a dear prompt must then be better by that much.
        abstain: whether "no prompt" may be given a margin, and strange inputs get none.
        model: the sentence-transformers model, a hub id or a folder.

    Raises:
        SelectorError: an option is out of range, unknown features, or on fitting a layer that the model does not have.
        MissingExtraError: `sentence` without sentence-transformers.
        ModelError: no such sentence model.

    Source: the expected loss of a stochastic policy, known from full-information counterfactual learning
    (arXiv 1502.02362); that it finds the domain without being told is this project's own finding.

    Example:
        >>> router = RouterSelector(seed=0).fit(bank, lm, calibration)  # doctest: +SKIP
        >>> [choice.index for choice in router.select_batch([[5, 6], [7]])]  # doctest: +SKIP
        [2, -1]
    """

    name: ClassVar[str] = "router"
    probabilities: ClassVar[bool] = True

    def __init__(
        self,
        *,
        seed: int = 0,
        l2: float | None = None,
        features: str = "embedding",
        teacher: str = "auto",
        hidden: int = 0,
        objective: str = "expected",
        price: float = 0.0,
        abstain: bool = True,
        model: str = SENTENCE_MODEL,
    ) -> None:
        """Check and keep the options."""
        check_features(features)
        if teacher not in ("auto", "none"):
            check_features(teacher)
        check_option(self.name, "objective", objective, list(OBJECTIVES))
        for option, value in (("l2", 0.0 if l2 is None else l2), ("hidden", hidden), ("price", price)):
            if not (isinstance(value, int | float) and value >= 0):
                raise SelectorError(f"{option} of selector {self.name!r} is a number of at least 0, not {value!r}.")
        if not float(hidden).is_integer():
            raise SelectorError(f"hidden of selector {self.name!r} is a whole number of units, not {hidden}.")
        if abstain not in (0, 1):
            raise SelectorError(f"abstain of selector {self.name!r} is 0 or 1, not {abstain!r}.")
        self.features, self.teacher, self.price, self.model = features, teacher, price, model
        self.seed, self.l2, self.abstain = seed, l2, bool(abstain)
        self._training = Training(objective, int(hidden), l2, seed, self.abstain)
        self._map: Linear | None = None
        self._typical: Typical | None = None
        self._knowledge: Knowledge | None = None

    @property
    def needs(self) -> Needs:
        """Losses: the router learns what each choice costs."""
        return "losses"

    def require(self, lm: LanguageModel) -> None:
        """Find out whether the features can be had, with one token."""
        for features in (self.features, self.teacher):
            if features not in ("auto", "none"):
                Knowledge(features, lm, self.model).of([[0]])

    @property
    def forwards(self) -> float:
        """The share of the layers that is run for the features."""
        return self._known.forwards

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose the most probable arm of each input."""
        if self._map is None:
            raise SelectorError("selector 'router' was not fitted: call fit or load_state first.")
        standard = self._map.standard(self._known.of(inputs))  # (N, f)
        logits = self._map.of_standard(standard)  # (N, m + 1)
        if self._typical is not None:
            logits[:, -1] += ALWAYS * self._typical.strange(standard)
        return pick(logits.softmax(dim=-1))

    @property
    def _known(self) -> Knowledge:
        if self._knowledge is None:
            self._knowledge = Knowledge(self.features, self.lm, self.model)
        return self._knowledge

    def _fit(self, calibration: Calibration | None) -> None:
        assert calibration is not None  # noqa: S101  (fit has checked it)
        self._knowledge = None  # of another model, maybe
        lesson = self._lesson(calibration)
        trained = self._training.run(lesson)
        if trained.margin:
            _LOG.warning("%s", _abstains(trained.margin))
        bias = with_margin(trained.map.bias[None], trained.margin)[0]  # (m + 1,)
        self._map = replace(trained.map, bias=bias)
        self._typical = Typical.of(self._map.standard(lesson.features), lesson.folds) if self.abstain else None
        _LOG.info("router fitted on %d inputs with l2 %g", len(lesson.losses), trained.l2)

    def _lesson(self, calibration: Calibration) -> Lesson:
        losses = calibration.require_losses(len(self.bank)) + self._prices()  # (N, m + 1)
        hints = calibration.hinted_arms(len(self.bank))
        teacher = self._teacher() if hints is None else None
        return Lesson(
            self._known.of(calibration.inputs),
            unit_losses(losses),
            calibration.folds(_FOLDS, self.seed),
            hints,
            None if teacher is None else teacher.of(calibration.inputs),
        )

    def _prices(self) -> Tensor:
        """What the tokens of each arm cost, `(m + 1,)`."""
        if not self.price:
            return torch.zeros(len(self.bank) + 1, dtype=torch.float64)
        lengths = [len(self.lm.embed_prompt(prompt)) for prompt in self.bank]
        return self.price * torch.tensor([*lengths, 0], dtype=torch.float64)

    def _teacher(self) -> Knowledge | None:
        if self.teacher == "none" or (self.teacher == "auto" and self.features != "embedding"):
            return None
        if self.teacher != "auto":
            return Knowledge(self.teacher, self.lm, self.model)
        try:
            return Knowledge("state", self.lm)
        except SelectorError as error:
            _LOG.info("the router has no teacher: %s", error)
            return None

    def _state(self) -> SelectorState:
        if self._map is None:
            raise SelectorError("selector 'router' was not fitted, so it has no state to keep.")
        config: dict[str, Any] = {"seed": self.seed, "features": self.features}
        if "sentence" in self.features:
            config |= {"model": self.model, "sentences": self._known.fingerprint}
        usual = {} if self._typical is None else vars(self._typical)
        return SelectorState(config, {**self._map.tensors, **{_TYPICAL + key: value for key, value in usual.items()}})

    def _load(self, state: SelectorState) -> None:
        written = state.config["features"]
        self.features, self.model = _OLD_NAMES.get(written, written), state.config.get("model", self.model)
        self._knowledge = None
        if self._known.fingerprint != state.config.get("sentences"):
            raise SelectorError(f"this state of 'router' was fitted with another sentence model than {self.model}.")
        usual = {key.removeprefix(_TYPICAL): value for key, value in state.tensors.items() if key.startswith(_TYPICAL)}
        found = Linear(**{key: value for key, value in state.tensors.items() if not key.startswith(_TYPICAL)})
        found.check(len(self.bank) + 1, self._known.width)
        self._map, self._typical = found, Typical(**usual) if usual else None


def _abstains(margin: float) -> str:
    """What is said where "no prompt" had to be given more."""
    if margin >= ALWAYS:
        return "no prompt of this bank helps on held-out inputs: the router abstains and always chooses none."
    return f'"no prompt" is chosen where the best prompt leads by less than {margin:.2f}: there prompts do harm.'
