"""The protocol of selectors: what they are fitted on, what they see, and what they answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.state import SelectorState
from idp.errors import SelectorError
from idp.model.loaded import LanguageModel

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

__all__ = ["Calibration", "Needs", "Selection", "Selector", "pick"]

Needs: TypeAlias = Literal["nothing", "inputs", "losses"]


@dataclass(frozen=True)
class Selection:
    """The prompt chosen for one input.

    Attributes:
        index: position in the bank; -1 is "no prompt".
        score: the score of the choice; larger is better, the unit is the selector's.
        scores: the score of every prompt in the bank's order, and last that of "no prompt", so that
            `scores[index]` is right for -1 too.

    Example:
        >>> choice = Selection(-1, 0.75, (0.25, 0.75))
        >>> choice.scores[choice.index]
        0.75
    """

    index: int
    score: float
    scores: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a selector may be fitted on; it never holds an item that something is evaluated on.

    Attributes:
        inputs: the token ids of `N` inputs without padding, contexts only.
        losses: `(N, m + 1)`, the loss (lower is better) of each input under every prompt of the bank, and last
            without a prompt; None where no answers are known.
        groups: the task each input comes from, where that is known.
        hints: the index of the prompt that was tuned for inputs like this one (-1 is "no prompt"), where that is known.

    Raises:
        SelectorError: no inputs, or losses, groups or hints that do not fit them, or losses that are not numbers.

    Example:
        >>> Calibration([[1, 2], [3]], torch.tensor([[0.1, 0.5], [0.9, 0.2]])).losses.shape
        torch.Size([2, 2])
    """

    inputs: Sequence[Sequence[int]]
    losses: Tensor | None = None
    groups: Sequence[str] | None = None
    hints: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        count = len(self.inputs)
        if not count:
            raise SelectorError("calibration has no inputs.")
        for name, values in (("groups", self.groups), ("hints", self.hints)):
            if values is not None and len(values) != count:
                raise SelectorError(f"calibration has {count} inputs but {len(values)} {name}.")
        if self.losses is not None:
            self._check_losses(self.losses, count)

    @staticmethod
    def _check_losses(losses: Tensor, count: int) -> None:
        if losses.ndim != 2 or losses.shape[0] != count:
            raise SelectorError(f"losses have shape {tuple(losses.shape)}, not ({count}, number of prompts + 1).")
        if not bool(torch.isfinite(losses).all()):
            raise SelectorError("the calibration losses hold NaN or infinity: measure them again in float32.")

    def folds(self, count: int, seed: int) -> Tensor:
        """Cut the inputs into `count` parts at random; equal inputs go to the same part.

        Tasks may ask the same question in several ways. Were its copies on both sides of a cut, what had learned the
        one by heart would look good on the other.

        Returns:
            The part of each input, `(N,)`, 0 to `count - 1`.
        """
        distinct: dict[tuple[int, ...], int] = {}
        places = torch.tensor([distinct.setdefault(tuple(ids), len(distinct)) for ids in self.inputs])  # (N,)
        order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed))  # (distinct,)
        return order[places] % count

    def require_losses(self, num_prompts: int) -> Tensor:
        """Return the losses `(N, m + 1)` in fp64 on the CPU.

        Raises:
            SelectorError: there are none, or not one column a prompt and one for "no prompt".
        """
        if self.losses is None:
            raise SelectorError("this selector learns from losses, but the calibration has none: measure them first.")
        if self.losses.shape[1] != num_prompts + 1:
            raise SelectorError(
                f"the losses have {self.losses.shape[1]} columns, but a bank of {num_prompts} needs "
                f'{num_prompts + 1} (the last is "no prompt").'
            )
        return self.losses.detach().to(device="cpu", dtype=torch.float64)

    def hinted_arms(self, num_prompts: int) -> Tensor | None:
        """Return the hints `(N,)` as columns of the losses, "no prompt" being the last; None where there are none.

        Raises:
            SelectorError: a hint is not a prompt of the bank.
        """
        if self.hints is None:
            return None
        wrong = next((hint for hint in self.hints if not -1 <= hint < num_prompts), None)
        if wrong is not None:
            raise SelectorError(f"calibration hints at prompt {wrong}, but the bank has {num_prompts} prompts.")
        return torch.tensor(self.hints) % (num_prompts + 1)


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

    _bank: PromptBank | None = None
    _lm: LanguageModel | None = None

    @property
    def needs(self) -> Needs:
        """What `fit` cannot do without: nothing, the calibration's inputs, or its losses too."""
        return "nothing"

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
        if self.needs != "nothing" and calibration is None:
            raise SelectorError(
                f"selector {self.name!r} has to be fitted on calibration {self.needs}, but got no calibration: "
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

    def state(self) -> SelectorState:
        """Return what `fit` learned, to be kept in a bank.

        Raises:
            SelectorError: the selector was not fitted.
        """
        state = self._state()
        return SelectorState({**state.config, "prompts": list(self.bank.names)}, state.tensors)

    def load_state(self, state: SelectorState, bank: PromptBank, lm: LanguageModel) -> Self:
        """Become the selector whose `state` was kept, without fitting again.

        Raises:
            SelectorError: the state is another selector's, or was fitted on another list of prompts.
        """
        fitted_on = state.config.get("prompts")
        if fitted_on != list(bank.names):
            raise SelectorError(
                f"this state of {self.name!r} was fitted on the prompts {fitted_on}, not on this bank's."
            )
        self._bank, self._lm = bank, lm
        try:
            self._load(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise SelectorError(f"not a state of selector {self.name!r}: {type(error).__name__} {error}.") from error
        return self

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
    if bool(torch.isnan(scores).any()):
        raise SelectorError("a selector's score is NaN: the model's weights or a prompt are broken.")
    values = scores.detach().cpu().numpy()  # (N, m + 1); numpy promises the first of equal maxima, torch does not
    last = values.shape[1] - 1
    winners = values.argmax(axis=1).tolist()
    return [
        Selection(-1 if winner == last else winner, row[winner], tuple(row))
        for winner, row in zip(winners, values.tolist(), strict=True)
    ]
