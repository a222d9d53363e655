"""The protocol of selectors: what they are fitted on, what they see, and what they answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.state import SelectorState
from idp.errors import SelectorError, suggest
from idp.model.loaded import LanguageModel
from idp.select.calibration import Calibration, Options
from idp.select.scores import Row, Scores

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

__all__ = [
    "MOST_SCORES",
    "Cost",
    "Needs",
    "Selection",
    "Selector",
    "check_option",
    "chosen_losses",
    "pick",
    "require_numbers",
]

Needs: TypeAlias = Literal["nothing", "inputs", "losses"]

MOST_SCORES = 1_000
"""Arms up to which the scores of all of them are worth writing down for every input."""


@dataclass(frozen=True)
class Selection:
    """The prompt chosen for one input.

    Attributes:
        index: position in the bank; -1 is "no prompt".
        score: the score of the choice; larger is better, the unit is the selector's.
        scores: the score of every prompt in the bank's order, and last that of "no prompt", so that
            `scores[index]` is right for -1 too; what makes them may wait until somebody looks.

    Example:
        >>> choice = Selection(-1, 0.75, (0.25, 0.75))
        >>> choice.scores[choice.index]
        0.75
    """

    index: int
    score: float
    scores: Sequence[float]


@dataclass(frozen=True)
class Cost:
    """What a selector takes, beside the prompts and the pass that answers.

    Attributes:
        forwards: passes of the model to choose for one input; part of its layers is part of a pass.
        parameters: numbers that it keeps.
        labels: whether it is fitted on losses, so on right answers.
        answers: whether it looks at the possible answers of an input where it is told them.
    """

    forwards: float
    parameters: int
    labels: bool
    answers: bool


class Selector(ABC):
    """Chooses for every input one prompt of a bank, or none.

    A selector is made with its options, then given a bank and a model by `fit` or, with what an earlier fit
    learned, by `load_state`; then it answers. Plug in your own with an entry point of the group `idp.selectors`.

    Example:
        >>> selector = get_selector("router").fit(bank, lm, calibration)  # doctest: +SKIP
        >>> selector.select(lm.tokenizer("Who wrote it?")["input_ids"]).index  # doctest: +SKIP
        3
    """

    name: ClassVar[str]
    """What the selector is called on the command line, in banks and in results."""

    version: ClassVar[int] = 1
    """Of the form of its state: a state of another version is refused."""

    probabilities: ClassVar[bool] = False
    """Whether its scores are probabilities, which mixtures then weigh prompts by."""

    spec: str | None = None
    """What it was asked for by, with its options, where it was made by name."""

    _bank: PromptBank | None = None
    _lm: LanguageModel | None = None

    @property
    def needs(self) -> Needs:
        """What `fit` cannot do without: nothing, the calibration's inputs, or its losses too."""
        return "nothing"

    def needs_for(self, bank: PromptBank) -> Needs:
        """What `fit` cannot do without on this bank: `needs`, or less where the bank itself tells enough."""
        return self.needs

    def require(self, lm: LanguageModel) -> None:  # noqa: B027  (most need nothing more)
        """Find out whether the selector can work with a model, and whether what else it works with is there.

        Args:
            lm: the model it is to choose for.

        Raises:
            SelectorError: it cannot look into a model of this kind.
            MissingExtraError: a library is not installed.
            ModelError: another model that it uses cannot be loaded.
        """

    @property
    def forwards(self) -> float:
        """Passes of the model to choose for one input, beside the one that answers."""
        return 0.0

    @property
    def answers(self) -> bool:
        """Whether the possible answers of an input, where they are known, change the choice."""
        return False

    @property
    def cost(self) -> Cost:
        """What choosing takes.

        Raises:
            SelectorError: the selector was not fitted.
        """
        kept = self._state().tensors.values()  # bytes are an index, made of the other numbers
        parameters = sum(tensor.numel() for tensor in kept if tensor.dtype != torch.uint8)
        return Cost(self.forwards, parameters, self.needs == "losses", self.answers)

    def fit(self, bank: PromptBank, lm: LanguageModel, calibration: Calibration | None = None) -> Self:
        """Learn how to choose from `bank` for `lm`.

        Args:
            bank: the prompts.
            lm: the model that will run with them.
            calibration: inputs, and the loss of each under each prompt; what of it is needed, `needs` says.

        Returns:
            The selector itself.

        Raises:
            SelectorError: the calibration lacks what this selector needs.
        """
        if (needs := self.needs_for(bank)) != "nothing" and calibration is None:
            raise SelectorError(
                f"selector {self.name!r} has to be fitted on calibration {needs}, but got no calibration: "
                f"use a bank that holds a fitted {self.name!r}, or fit it first."
            )
        self._bank, self._lm = bank, lm
        self._fit(calibration)
        return self

    @abstractmethod
    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose a prompt for each of any number of inputs; each is judged as if it were alone.

        Args:
            inputs: token ids without padding; an input may be empty.

        Returns:
            One selection an input. Equal scores go to the smallest index, and to a prompt before "no prompt".

        Raises:
            SelectorError: the selector was not fitted.
        """

    def select(self, input_ids: Sequence[int]) -> Selection:
        """Choose a prompt for one input; see `select_batch`."""
        return self.select_batch([input_ids])[0]

    def select_among(self, inputs: Sequence[Sequence[int]], options: Sequence[Options]) -> list[Selection]:
        """Choose for inputs whose possible answers are known; most selectors do not look at them.

        Args:
            inputs: as for `select_batch`.
            options: the possible answers of each input, token ids; none where they are not known.

        Raises:
            SelectorError: the selector was not fitted.
        """
        return self.select_batch(inputs)

    def state(self) -> SelectorState:
        """Return what `fit` learned, to be kept in a bank.

        Raises:
            SelectorError: the selector was not fitted.
        """
        state = self._state()
        about = {"version": self.version, "prompts": list(self.bank.names), "bank": self.bank.digest}
        return SelectorState({**state.config, **about}, state.tensors)

    def load_state(self, state: SelectorState, bank: PromptBank, lm: LanguageModel) -> Self:
        """Become the selector whose `state` was kept, without fitting again.

        Raises:
            SelectorError: the state is another selector's or of another version, or was fitted on other prompts.
        """
        self._check_state(state, bank)
        self._bank, self._lm = bank, lm
        try:
            self._load(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise SelectorError(f"not a state of selector {self.name!r}: {type(error).__name__} {error}.") from error
        return self

    def _check_state(self, state: SelectorState, bank: PromptBank) -> None:
        version = state.config.get("version", 1)
        if version != self.version:
            raise SelectorError(
                f"this state of {self.name!r} has version {version}, and this idp reads {self.version}: fit it again."
            )
        fitted_on = state.config.get("prompts")
        if fitted_on != list(bank.names):
            raise SelectorError(
                f"this state of {self.name!r} was fitted on the prompts {shorten(str(fitted_on), 500)}, not on this "
                "bank's."
            )
        if any(state is own for own in bank.selectors.values()):
            return  # the bank's own, which its checksum vouches for
        if state.config.get("bank", bank.digest) != bank.digest:
            raise SelectorError(f"this state of {self.name!r} was fitted on prompts of the same names, but other ones.")

    @property
    def bank(self) -> PromptBank:
        """The bank that is chosen from.

        Raises:
            SelectorError: the selector was not fitted.
        """
        if self._bank is None:
            raise SelectorError(f"selector {self.name!r} was not fitted: call fit or load_state first.")
        return self._bank

    @property
    def lm(self) -> LanguageModel:
        """The model that is chosen for.

        Raises:
            SelectorError: the selector was not fitted.
        """
        if self._lm is None:
            raise SelectorError(f"selector {self.name!r} was not fitted: call fit or load_state first.")
        return self._lm

    def _fit(self, calibration: Calibration | None) -> None:  # noqa: B027  (nothing to learn is a fair default)
        """Learn from the calibration; `bank` and `lm` are set."""

    def _state(self) -> SelectorState:
        """Return what was learned; the names of the prompts are added to its config."""
        return SelectorState()

    def _load(self, state: SelectorState) -> None:  # noqa: B027
        """Take over what was learned; `bank` and `lm` are set."""


def pick(scores: Tensor) -> list[Selection]:
    """Choose the largest score of each row.

    Args:
        scores: `(N, m + 1)`, the last column for "no prompt".

    Returns:
        One selection a row; equal scores go to the first column that has them.

    Raises:
        SelectorError: a score is NaN.

    Example:
        >>> pick(torch.tensor([[0.5, 0.5, 0.1], [0.1, 0.2, 0.3]]))[1].index
        -1
    """
    require_numbers(scores)
    values = scores.detach().cpu().numpy()  # (N, m + 1); numpy promises the first of equal maxima, torch does not
    return [_picked(row, winner) for row, winner in zip(values, values.argmax(axis=1).tolist(), strict=True)]


def _picked(row: Row, winner: int) -> Selection:
    index = -1 if winner == len(row) - 1 else winner
    return Selection(index, float(row[winner]), Scores(len(row), lambda: row))


def require_numbers(scores: Tensor) -> None:
    """Check the scores of a selector.

    Raises:
        SelectorError: one is NaN.
    """
    if bool(torch.isnan(scores).any()):
        raise SelectorError("a selector's score is NaN: the model's weights or a prompt are broken.")


def chosen_losses(chosen: Sequence[Selection], losses: Tensor) -> Tensor:
    """What choices cost, `(N,)`.

    Args:
        chosen: one selection an input.
        losses: `(N, m + 1)`, the last column for "no prompt".

    Example:
        >>> chosen_losses([Selection(-1, 1.0, (0.0, 1.0))], torch.tensor([[0.2, 0.7]]))
        tensor([0.7000])
    """
    arms = torch.tensor([choice.index for choice in chosen], dtype=torch.long) % losses.shape[1]  # (N,)
    return losses.gather(1, arms[:, None])[:, 0]


def check_option(selector: str, option: str, value: str, known: Sequence[str]) -> None:
    """Check an option that is one of several words.

    Raises:
        SelectorError: it is none of them; near misses are named.
    """
    if value not in known:
        raise SelectorError(f"selector {selector!r} has no {option} {value!r}. {suggest(str(value), known)}")
