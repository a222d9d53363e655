"""Prompts with keys: the prompt whose key is nearest to the input wins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from idp.bank.state import SelectorState
from idp.bank.tensor_file import tensor_sha256
from idp.errors import SelectorError
from idp.select.base import Needs, Selection, Selector, check_option
from idp.select.calibration import Calibration
from idp.select.codes import Codes, has_faiss
from idp.select.features import mean_embeddings
from idp.select.linear import expected_loss, minimised
from idp.select.nearest import RECALL, Nearest

__all__ = ["INDEX_FROM", "KeysSelector", "cosines"]

_LOG = logging.getLogger(__name__)

_TEMPERATURE = 0.1
INDEX_FROM = 10_000
"""Prompts from which on an index finds the key of one input sooner than a product with all of them."""


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

    Keys are kept in fp32. With many of them an approximate index (product quantisation, arXiv 1812.09162) names 128
    candidates, of which the nearest is chosen. It is kept with the keys. How often the choice is the exact one is
    measured on directions between the calibration inputs, or where there are none, between the keys.

    Scores: the cosines; an empty input has 0 everywhere.

    Args:
        keys: `centroid`, `learned` or `prompts`.
        index: `exact` compares with every key, `approximate` searches an index. `auto` makes one for 10,000 prompts or
            more where faiss is installed and the index finds 99 % of the exact choices, and uses what a state holds.

    Raises:
        SelectorError: unknown keys or index; on fitting, neither hints nor losses; on loading, `approximate` and a
            state without an index.
        MissingExtraError: `approximate`, and faiss is not installed.

    Source: L2P, arXiv 2112.08654 section 4.2.

    Example:
        >>> KeysSelector().fit(bank, lm, calibration).select([5, 6]).index  # doctest: +SKIP
        2
    """

    name: ClassVar[str] = "keys"

    def __init__(self, *, keys: str = "centroid", index: str = "auto") -> None:
        """Check and keep the options."""
        check_option(self.name, "keys", keys, ("centroid", "learned", "prompts"))
        check_option(self.name, "index", index, ("auto", "exact", "approximate"))
        self.keys = keys
        self.index = index
        self._nearest: Nearest | None = None
        self._mean = torch.zeros(1, dtype=torch.float64)  # (d,)

    @property
    def needs(self) -> Needs:
        """Losses, which hints can stand for; nothing where keys come from the prompts."""
        return "nothing" if self.keys == "prompts" else "losses"

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose the nearest key of each input."""
        if self._nearest is None:
            raise SelectorError("selector 'keys' was not fitted: call fit or load_state first.")
        return self._nearest.choose(self._queries(inputs))

    def _queries(self, inputs: Sequence[Sequence[int]]) -> Tensor:
        """Queries `(N, d)`; that of an empty input is 0."""
        return torch.nan_to_num(mean_embeddings(self.lm, inputs) - self._mean)

    def _fit(self, calibration: Calibration | None) -> None:
        self._mean = torch.zeros(self.lm.hidden_size, dtype=torch.float64)
        if self.keys == "prompts":
            keys = self._prompt_keys()
        else:
            assert calibration is not None  # noqa: S101  (fit has checked it)
            self._mean = mean_embeddings(self.lm, calibration.inputs).nanmean(dim=0)
            keys = self._fitted_keys(calibration)
        self._nearest = self._nearest_of(keys, None if calibration is None else self._queries(calibration.inputs))

    def _prompt_keys(self) -> Tensor:
        """The mean vector of each prompt, and none for "no prompt": `(m + 1, d)`."""
        keys = torch.full((len(self.bank) + 1, self.lm.hidden_size), torch.nan)
        for row, prompt in enumerate(self.bank):
            keys[row] = normalize(self.lm.embed_prompt(prompt).double().cpu().mean(dim=0), dim=0)
        return keys

    def _fitted_keys(self, calibration: Calibration) -> Tensor:
        queries, arms = self._queries(calibration.inputs), len(self.bank) + 1
        keys = _centroids(queries, calibration.owners(arms - 1), arms)
        if self.keys == "learned":
            keys = _learned(keys, queries, calibration.require_losses(arms - 1))
        return keys.float()

    def _nearest_of(self, keys: Tensor, samples: Tensor | None) -> Nearest:
        """What finds the nearest of new keys, with an index of them where that is wanted."""
        many = self.index == "auto" and len(self.bank) >= INDEX_FROM
        if self.index != "approximate" and not (many and _can_index()):
            return Nearest(keys)
        found, recall = Nearest.indexed(keys, samples)
        if recall < RECALL:
            _LOG.warning("an index finds only %.3f of the exact choices", recall)
            return found if self.index == "approximate" else Nearest(keys)
        return found

    def _state(self) -> SelectorState:
        if self._nearest is None:
            raise SelectorError("selector 'keys' was not fitted, so it has no state to keep.")
        config: dict[str, Any] = {"keys": self.keys}
        tensors = {"keys": self._nearest.keys, "mean": self._mean}
        if self._nearest.codes is not None:
            config["indexed"], tensors["index"] = tensor_sha256(self._nearest.keys), self._nearest.codes.tensor
        return SelectorState(config, tensors)

    def _load(self, state: SelectorState) -> None:
        keys, mean = state.tensors["keys"], state.tensors["mean"]
        width = self.lm.hidden_size
        if keys.shape != (len(self.bank) + 1, width) or mean.shape != (width,):
            raise ValueError(f"keys of shape {tuple(keys.shape)} for a bank of {len(self.bank)} and width {width}")
        self.keys = KeysSelector(keys=state.config["keys"]).keys
        self._nearest, self._mean = self._kept(keys, state), mean

    def _kept(self, keys: Tensor, state: SelectorState) -> Nearest:
        """What finds the nearest of the keys of a state, with its index where there is one that is wanted."""
        if self.index == "approximate" and "index" not in state.tensors:
            raise SelectorError(f"this state of {self.name!r} has no index: fit it again, or choose index=exact.")
        if self.index == "exact" or "index" not in state.tensors or not (self.index == "approximate" or _can_index()):
            return Nearest(keys)
        if state.config["indexed"] != tensor_sha256(keys):
            raise ValueError("an index of other keys")
        return Nearest(keys, Codes.open(state.tensors["index"], keys.shape[1], len(keys)))


@cache
def _can_index() -> bool:
    """Whether an index can be used; says so once where it cannot."""
    if not has_faiss():
        _LOG.warning("faiss is not installed, so every key is compared: pip install 'idp[scale]' for an index.")
    return has_faiss()


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
