"""What selectors may be fitted on: inputs, and what every prompt costs on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
        distinct: dict[tuple[int, ...], int] = {}
        places = torch.tensor([distinct.setdefault(tuple(ids), len(distinct)) for ids in self.inputs])  # (N,)
        order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed))  # (distinct,)
        return order[places] % count

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
