"""The router of a sparse mixture of prompts: trained together with its prompts, used as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from idp.bank.bank import PromptBank
from idp.bank.state import SelectorState
from idp.errors import SelectorError
from idp.select.base import Selection, Selector, pick
from idp.select.calibration import Calibration
from idp.select.features import mean_embeddings

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

    from idp.model.loaded import LanguageModel

__all__ = ["Routing", "SmopSelector", "route"]


class Routing(NamedTuple):
    """What a router says to `N` inputs.

    Attributes:
        probabilities: of each prompt, `(N, k)` fp64.
        gates: that of the chosen prompt, `(N,)`.
        chosen: its number, `(N,)`; of equal ones the first.
    """

    probabilities: Tensor
    gates: Tensor
    chosen: Tensor


def route(router: Tensor, features: Tensor, noise: Tensor | None = None) -> Routing:
    """Choose one of `k` prompts for each input: `p = softmax(R e)`, the largest wins.

    Args:
        router: `R`, `(k, d)`.
        features: mean input embeddings `e`, `(N, d)` fp64; an empty input, a row of NaN, counts as 0.
        noise: `eps`, `(N, k)`: the logits `g` become `g + g eps`, the `g` of the noise without gradient.

    Returns:
        Probabilities, gates and choices; gradients reach the router through the first two.

    Example:
        >>> route(torch.eye(2), torch.tensor([[1.0, 0.0]], dtype=torch.float64)).gates
        tensor([0.7311], dtype=torch.float64)
    """
    logits = torch.nan_to_num(features) @ router.double().T  # (N, k)
    if noise is not None:
        logits = logits + logits.detach() * noise
    probabilities = logits.softmax(dim=-1)
    return Routing(probabilities, *probabilities.max(dim=-1))


class SmopSelector(Selector):
    """Choose the prompt that the router trained with the prompts of a mixture (SMoP) gives the largest weight.

    `p = softmax(R e(x))` with the mean input embedding `e(x)` and no bias; the largest `p_i` wins. In training the
    logits carry noise and the chosen prompt is multiplied by `p_i`, which is how the router learns; at inference there
    is no noise. A cached prompt cannot be multiplied by what an input says: the bank's prompts hold the mean of their
    `p_i` instead (see `idp.tune.mixture_bank`).

    The router is nothing that could be fitted to prompts afterwards, so `fit` only takes it from a bank that was made
    from a mixture. `router` is the selector that learns from what finished prompts cost.

    Scores: the softmax; "no prompt" has `-inf` and is never chosen. An empty input gets the first prompt.

    Raises:
        SelectorError: on fitting, the bank holds no router.

    Source: SMoP, EMNLP 2023 (Choi et al., "SMoP: Towards Efficient and Effective Prompt Tuning with Sparse
    Mixture-of-Prompts"), and its repository.

    Example:
        >>> bank = mixture_bank(tune_mixture(...), lm, held_out)  # doctest: +SKIP
        >>> SmopSelector().fit(bank, lm).select([5, 6]).index  # doctest: +SKIP
        2
    """

    name: ClassVar[str] = "smop"
    probabilities: ClassVar[bool] = True

    def __init__(self) -> None:
        """Start without a router."""
        self._router: Tensor | None = None  # (m, d)

    @classmethod
    def of(cls, router: Tensor, bank: PromptBank, lm: LanguageModel) -> Self:
        """Make a selector of a trained router.

        Args:
            router: `(m, d)`, a row a prompt of the bank.
            bank: the prompts it was trained with.
            lm: the model.

        Raises:
            SelectorError: the router has another shape.
        """
        return cls().load_state(SelectorState({"prompts": list(bank.names)}, {"router": router}), bank, lm)

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose the most probable prompt of each input."""
        if self._router is None:
            raise SelectorError("selector 'smop' was not fitted: call fit or load_state first.")
        probabilities = route(self._router, mean_embeddings(self.lm, inputs)).probabilities  # (N, m)
        return pick(pad(probabilities, (0, 1), value=-torch.inf))

    def _fit(self, calibration: Calibration | None) -> None:
        if self.name not in self.bank.selectors:
            raise SelectorError(
                "selector 'smop' is trained together with its prompts, and this bank holds no such router: tune a "
                "mixture (idp.tune.mixture), or choose another selector."
            )
        self.load_state(self.bank.selectors[self.name], self.bank, self.lm)

    def _state(self) -> SelectorState:
        if self._router is None:
            raise SelectorError("selector 'smop' was not fitted, so it has no state to keep.")
        return SelectorState({"features": "mean_embedding"}, {"router": self._router})

    def _load(self, state: SelectorState) -> None:
        router = state.tensors["router"]
        if router.shape != (len(self.bank), self.lm.hidden_size):
            raise ValueError(
                f"a router of shape {tuple(router.shape)} for {len(self.bank)} prompts and width {self.lm.hidden_size}"
            )
        if not bool(torch.isfinite(router).all()):
            raise ValueError("a router that holds NaN or infinity")
        self._router = router
