"""What selectors may be fitted on: inputs, and what every prompt costs on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from idp.errors import SelectorError

__all__ = ["Calibration", "Options"]

Options: TypeAlias = Sequence[Sequence[int]]
"""The possible answers of one input, token ids; none where they are not known."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a selector may be fitted on; it never holds an item that something is evaluated on.

    Attributes:
        inputs: the token ids of `N` inputs without padding, contexts only.
        losses: `(N, m + 1)`, the loss (lower is better) of each input under every prompt of the bank, and last
            without a prompt; None where no answers are known.
        groups: the task each input comes from, where that is known.
        hints: the index of the prompt that was tuned for inputs like this one (-1 is "no prompt"), where that is known.
        options: the possible answers of each input, where they are known.

    Raises:
        SelectorError: no inputs, or losses, groups, hints or options that do not fit them, or losses that are not
            numbers.

    Example:
        >>> Calibration([[1, 2], [3]], torch.tensor([[0.1, 0.5], [0.9, 0.2]])).losses.shape
        torch.Size([2, 2])
    """

    inputs: Sequence[Sequence[int]]
    losses: Tensor | None = None
    groups: Sequence[str] | None = None
    hints: Sequence[int] | None = None
    options: Sequence[Options] | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        count = len(self.inputs)
        if not count:
            raise SelectorError("calibration has no inputs.")
        for name in ("groups", "hints", "options"):
            values = getattr(self, name)
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
        places = self._places()  # (N,)
        order = torch.randperm(int(places.max()) + 1, generator=torch.Generator().manual_seed(seed))  # (distinct,)
        return order[places] % count

    def distinct(self) -> Calibration:
        """Return every different input once, as it first appears, with the mean of its losses.

        Example:
            >>> Calibration([[1], [2], [1]], torch.tensor([[0.0, 1.0], [0.5, 0.5], [1.0, 1.0]])).distinct().inputs
            [[1], [2]]
        """
        places = self._places()  # (N,)
        first = {place: row for row, place in reversed([*enumerate(places.tolist())])}
        kept = self.rows([first[place] for place in range(len(first))])
        if self.losses is None or kept.losses is None:
            return kept
        sums = torch.zeros_like(kept.losses, dtype=torch.float64).index_add(0, places, self.losses.double())
        return replace(kept, losses=sums / torch.bincount(places)[:, None])

    def _places(self) -> Tensor:
        """The number of each input among the different ones, `(N,)`."""
        numbers: dict[tuple[int, ...], int] = {}
        return torch.tensor([numbers.setdefault(tuple(ids), len(numbers)) for ids in self.inputs])

    def rows(self, rows: Sequence[int]) -> Calibration:
        """Return a part of it, in the order asked for.

        Example:
            >>> Calibration([[1, 2], [3]], groups=["a", "b"]).rows([1]).groups
            ['b']
        """

        def of(values: Sequence[Any] | None) -> list[Any] | None:
            return None if values is None else [values[row] for row in rows]

        losses = None if self.losses is None else self.losses[list(rows)]
        inputs = [self.inputs[row] for row in rows]
        return Calibration(inputs, losses, of(self.groups), of(self.hints), of(self.options))

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

    def owners(self, num_prompts: int) -> Tensor:
        """Return the arm that each input belongs to, `(N,)`: by its hint, else by its lowest loss.

        Raises:
            SelectorError: neither hints nor losses, or a hint that is not a prompt of the bank.
        """
        hints = self.hinted_arms(num_prompts)
        return self.require_losses(num_prompts).argmin(dim=1) if hints is None else hints
