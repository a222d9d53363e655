"""The nearest of many keys: by one matrix product, or among the candidates of an approximate index."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from idp.errors import SelectorError
from idp.select.base import Selection
from idp.select.codes import Codes, Places
from idp.select.scores import Row, Scores

__all__ = ["RECALL", "Nearest"]

_CANDIDATES = 128
_PRODUCTS = 2**24
"""Cosines computed at once: 64 MB of fp32."""
_ROWS = 8192
_SAMPLES = 256
RECALL = 0.99
_NO_KEYS = "no arm has a key that could be chosen: fit the selector again."


class Nearest:
    """Finds the arm whose key has the largest cosine with a query.

    The matrix product in the keys' own precision, or the index, only names candidates: all that could be the largest
    up to rounding, or 128. Their cosines are computed in fp64, each by itself, and decide; so a choice depends neither
    on what else is in the batch, nor, where the index names the right one, on the way. Equal cosines go to the first
    arm.

    Args:
        keys: `(m + 1, d)`, rows of length 1 or 0, the last one of "no prompt"; a row with NaN is never chosen.
        codes: an index of these keys, each distinct one under the first place that has it; None computes all products.

    Raises:
        ValueError: rows of another length.

    Example:
        >>> Nearest(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])).choose(torch.tensor([[1.0, 9.0]]))[0].index
        1
    """

    def __init__(self, keys: Tensor, codes: Codes | None = None) -> None:
        """Check the keys; with an index, only those that are candidates will be looked at."""
        self.keys = keys
        self.codes = codes
        if codes is None:
            self._check_keys()

    @classmethod
    def indexed(cls, keys: Tensor, samples: Tensor | None = None) -> tuple[Nearest, float]:
        """Index keys, and measure the recall: how often the choice is the exact one.

        Args:
            keys: `(m + 1, d)`, as above.
            samples: queries, `(N, d)`; None takes the keys. What is searched for is 256 sums of the directions of four
                of them: an input that a key was made of lies nearer to it than one to come does, and is found too soon.

        Returns:
            What finds them, and the recall.

        Raises:
            MissingExtraError: faiss is not installed.
            SelectorError: no arm has a key.
        """
        places = _distinct(keys)
        if not len(places):
            raise SelectorError(_NO_KEYS)
        found = cls(keys, Codes.build(keys, places))
        asked = _between(keys[torch.from_numpy(places)] if samples is None else samples)
        pairs = zip(cls(keys).choose(asked), found.choose(asked), strict=True)
        return found, sum(one.index == other.index for one, other in pairs) / len(asked)

    def choose(self, queries: Tensor) -> list[Selection]:
        """Choose for each query.

        Args:
            queries: `(N, d)` of any length; where one is 0 every cosine is 0, and the first arm with a key is chosen.

        Raises:
            SelectorError: a query holds NaN or infinity, or no arm has a key.
        """
        if not bool(torch.isfinite(queries).all()):
            raise SelectorError("an input's features hold NaN or infinity: the model's weights are broken.")
        if not len(queries):
            return []
        directions = normalize(queries.double(), dim=1)  # (N, d)
        return [self._best(*pair) for pair in zip(directions, self._candidates(directions), strict=True)]

    def _best(self, direction: Tensor, places: Places) -> Selection:
        if not len(places):
            raise SelectorError(_NO_KEYS)
        cosines = _cosines(self.keys[torch.from_numpy(places)], direction).numpy()  # (k,)
        best = int(cosines.argmax())  # the first of equal ones
        last, place = len(self.keys) - 1, int(places[best])
        scores = Scores(last + 1, lambda: self._all(direction, places, cosines))
        return Selection(-1 if place == last else place, float(cosines[best]), scores)

    def _all(self, direction: Tensor, places: Places, cosines: Row) -> Row:
        """All cosines with a direction, those that are known to the last bit: `(m + 1,)`."""
        scores: Row = np.concatenate([_cosines(part, direction).numpy() for part in _parts(self.keys, _ROWS)])
        scores[places] = cosines
        scores[np.isnan(scores)] = -np.inf
        return scores

    def _candidates(self, directions: Tensor) -> Iterator[Places]:
        """The places that are looked at closely, ascending, for each row of `(N, d)`."""
        for part in _parts(directions, max(1, _PRODUCTS // len(self.keys))):
            still = (part == 0).all(dim=1).numpy()  # (n,)
            found = self._by_product(part) if self.codes is None else self._by_codes(self.codes, part)
            for zero, places in zip(still, found, strict=True):
                yield self._first if zero else places

    def _by_codes(self, codes: Codes, directions: Tensor) -> Iterator[Places]:
        """What the index names; it leaves out what scores as low as can be, which in a tiny one may be all there is."""
        for row, places in enumerate(codes.search(directions, _CANDIDATES)):
            yield places if len(places) else next(self._by_product(directions[row : row + 1]))

    @property
    def _first(self) -> Places:
        """The first arm that has a key."""
        for number, part in enumerate(_parts(self.keys, _ROWS)):
            known = np.flatnonzero(~part.isnan().any(dim=1).numpy())
            if len(known):
                return known[:1] + number * _ROWS
        return np.array([], dtype=np.int64)

    def _by_product(self, directions: Tensor) -> Iterator[Places]:
        """All places whose cosine may be the largest: their products lie within twice the bound on rounding."""
        products = (directions.to(self.keys.dtype) @ self.keys.T).numpy()  # (n, m + 1)
        slack = (self.keys.shape[1] + 4) * torch.finfo(self.keys.dtype).eps
        for row in products:
            largest = np.fmax.reduce(row)  # NaN counts only where there is nothing else
            yield np.flatnonzero(row >= largest - slack)

    def _check_keys(self) -> None:
        for part in _parts(self.keys, _ROWS):
            lengths = part.norm(dim=1)  # (rows,)
            fits = lengths.isnan() | (lengths == 0) | ((lengths - 1).abs() < 1e-3)
            if not bool(fits.all()):
                raise ValueError("keys whose length is not 1")


def _parts(rows: Tensor, count: int) -> Iterator[Tensor]:
    """Cut `(k, d)` into parts of `count` rows."""
    return (rows[start : start + count] for start in range(0, len(rows), count))


def _cosines(keys: Tensor, direction: Tensor) -> Tensor:
    """Cosines of `(k, d)` with a direction `(d,)`, each by itself: `(k,)` fp64; 0 of a key that is 0."""
    exact = keys.double()
    cosines: Tensor = (exact * direction).sum(dim=1) / exact.norm(dim=1).clamp_min(1e-12)
    return cosines


def _distinct(keys: Tensor) -> Places:
    """The first place of every different key, ascending; none with NaN."""
    known = np.flatnonzero(~keys.isnan().any(dim=1).numpy())
    _, first = np.unique(keys.numpy()[known], axis=0, return_index=True)
    return np.sort(known[first])


def _between(rows: Tensor) -> Tensor:
    """Sums of the directions of four rows drawn at random, `(256, d)`."""
    drawn = np.random.default_rng(0).integers(len(rows), size=(4, _SAMPLES))
    return normalize(rows[torch.from_numpy(drawn)], dim=-1).sum(dim=0)
