"""Prompts with keys: the prompt whose key is nearest to the input wins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from idp.bank.state import SelectorState
from idp.errors import SelectorError
from idp.select.base import Needs, Selection, Selector, check_option, pick
from idp.select.calibration import Calibration
from idp.select.features import mean_embeddings
from idp.select.linear import expected_loss, minimised

__all__ = ["KeysSelector", "cosines"]

_TEMPERATURE = 0.1


class KeysSelector(Selector):
    """Choose the arm whose key `k_i` has the largest cosine with the input, `cos(k_i, q(x))`.

    `q(x)` is the mean input embedding, less its mean over the calibration inputs: all embeddings have much in common,
    which tells no two inputs apart.

    An arm's key, where keys are `centroid`, is the mean of the normalised queries of the calibration inputs that belong
    to it: by the hints of the calibration, else by their lowest loss. An arm without inputs is never chosen. `learned`
    keys start there and lower the expected loss of a choice drawn from `softmax(cos / 0.1)`. Where they are the
    `prompts`, nothing is fitted: a key is the mean of its prompt's vectors, and "no prompt" is never chosen.

    In L2P keys are only drawn towards the queries that chose them, since its top-k has no gradient; from centroids this
    is one more step of k-means, which is what `centroid` has converged to.

    Scores: the cosines; an empty input has 0 everywhere.

    Args:
        keys: `centroid`, `learned` or `prompts`.

    Raises:
        SelectorError: unknown keys; on fitting, neither hints nor losses.

    Source: L2P, arXiv 2112.08654 section 4.2.

    Example:
        >>> KeysSelector().fit(bank, lm, calibration).select([5, 6]).index  # doctest: +SKIP
        2
    """

    name: ClassVar[str] = "keys"

    def __init__(self, *, keys: str = "centroid") -> None:
        """Check and keep the options."""
        check_option(self.name, "keys", keys, ("centroid", "learned", "prompts"))
        self.keys = keys
        self._keys: Tensor | None = None  # (m + 1, d), rows of length 1; NaN for an arm that is never chosen
        self._mean = torch.zeros(1, dtype=torch.float64)  # (d,)

    @property
    def needs(self) -> Needs:
        """Losses, which hints can stand for; nothing where keys come from the prompts."""
        return "nothing" if self.keys == "prompts" else "losses"

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose the nearest key of each input."""
        if self._keys is None:
            raise SelectorError("selector 'keys' was not fitted: call fit or load_state first.")
        similarity = cosines(self._queries(inputs), self._keys)  # (N, m + 1)
        return pick(similarity.masked_fill(self._keys.isnan().any(dim=1), -torch.inf))

    def _queries(self, inputs: Sequence[Sequence[int]]) -> Tensor:
        """Queries `(N, d)`; that of an empty input is 0."""
        return torch.nan_to_num(mean_embeddings(self.lm, inputs) - self._mean)

    def _fit(self, calibration: Calibration | None) -> None:
        if self.keys == "prompts":
            self._mean = torch.zeros(self.lm.hidden_size, dtype=torch.float64)
            rows = [self.lm.embed_prompt(prompt).double().cpu().mean(dim=0) for prompt in self.bank]
            self._keys = normalize(torch.stack([*rows, torch.full_like(rows[0], torch.nan)]), dim=1)
            return
        assert calibration is not None  # noqa: S101  (fit has checked it)
        self._mean = mean_embeddings(self.lm, calibration.inputs).nanmean(dim=0)
        queries, arms = self._queries(calibration.inputs), len(self.bank) + 1
        self._keys = _centroids(queries, calibration.owners(arms - 1), arms)
        if self.keys == "learned":
            self._keys = _learned(self._keys, queries, calibration.require_losses(arms - 1))

    def _state(self) -> SelectorState:
        if self._keys is None:
            raise SelectorError("selector 'keys' was not fitted, so it has no state to keep.")
        return SelectorState({"keys": self.keys}, {"keys": self._keys, "mean": self._mean})

    def _load(self, state: SelectorState) -> None:
        keys, mean = state.tensors["keys"], state.tensors["mean"]
        width = self.lm.hidden_size
        if keys.shape != (len(self.bank) + 1, width) or mean.shape != (width,):
            raise ValueError(f"keys of shape {tuple(keys.shape)} for a bank of {len(self.bank)} and width {width}")
        self.keys = KeysSelector(keys=state.config["keys"]).keys
        self._keys, self._mean = keys, mean


def cosines(queries: Tensor, keys: Tensor) -> Tensor:
    """Cosine of every query `(N, d)` with every key `(m, d)`: `(N, m)`; 0 for a query of 0.

    Example:
        >>> cosines(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]]))
        tensor([[0.9600]])
    """
    return normalize(queries, dim=1) @ normalize(keys, dim=1).T


def _centroids(queries: Tensor, owners: Tensor, arms: int) -> Tensor:
    """Normalised means of the queries of each arm, `(arms, d)`; NaN where there are none."""
    directions = normalize(queries, dim=1)
    sums = torch.zeros(arms, queries.shape[1], dtype=queries.dtype).index_add(0, owners, directions)
    counts = torch.bincount(owners, minlength=arms)[:, None]
    return torch.where(counts > 0, normalize(sums, dim=1), torch.nan)


def _learned(keys: Tensor, queries: Tensor, losses: Tensor) -> Tensor:
    """Keys that lower the expected loss, `(m + 1, d)`; arms without a key stay without."""
    known = ~keys.isnan().any(dim=1)  # (m + 1,)

    def expected(candidates: Tensor) -> Tensor:
        return expected_loss(cosines(queries, candidates) / _TEMPERATURE, losses[:, known])  # of (N, known)

    found = keys.clone()
    found[known] = normalize(minimised(expected, keys[known])[0], dim=1)
    return found
