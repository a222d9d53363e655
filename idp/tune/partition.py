"""Cutting the tuning data into parts that get a prompt each, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idp.errors import TaskError
from idp.tune.examples import Example
from idp.tune.states import context_states

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Partition"]

_STARTS = 4


@dataclass(frozen=True, eq=False)
class Partition:
    """Parts of the data that are about the same kind of thing: clusters of what the model has understood of a context.

    Clusters of mean input embeddings would divide by form (a question, a story) before they divide by matter.

    Attributes:
        mean: of the features, `(d,)`.
        std: of the features, `(d,)`.
        centroids: of the parts in standardised features, `(k, d)`; the largest part is the first.

    Example:
        >>> parts = Partition.fit(lm, tuning, 20, seed=0)  # doctest: +SKIP
        >>> parts.assign(lm, held_out)[:3]  # doctest: +SKIP
        [4, 0, 7]
    """

    mean: Tensor
    std: Tensor
    centroids: Tensor

    @classmethod
    def fit(cls, lm: LanguageModel, examples: Sequence[Example], k: int, seed: int) -> Partition:
        """Find the parts by k-means on the contexts' states.

        Args:
            lm: the model whose hidden states are the features; see `context_states`.
            examples: what to partition.
            k: number of parts.
            seed: of the starts.

        Raises:
            TaskError: fewer distinct contexts than parts, or less than one part.
        """
        from sklearn.cluster import KMeans  # type: ignore[import-untyped, unused-ignore]

        features = _features(lm, examples)  # (N, d)
        distinct = len({example.context for example in examples})
        if not 1 <= k <= distinct:
            raise TaskError(f"cannot make {k} parts of {distinct} different contexts; ask for 1 to {distinct}.")
        mean, std = features.mean(dim=0), features.std(dim=0, correction=0)  # (d,), (d,)
        std = torch.where(std > 1e-12, std, torch.ones_like(std))
        found = KMeans(k, n_init=_STARTS, random_state=seed).fit(((features - mean) / std).numpy())
        sizes = torch.bincount(torch.as_tensor(found.labels_).long(), minlength=k)  # (k,)
        centroids = torch.as_tensor(found.cluster_centers_, dtype=torch.float64)  # (k, d)
        return cls(mean, std, centroids[sizes.argsort(descending=True, stable=True)])

    def assign(self, lm: LanguageModel, examples: Sequence[Example]) -> list[int]:
        """Return the part of each example, the one with the nearest centroid; equal distances go to the first."""
        standard = (_features(lm, examples) - self.mean) / self.std  # (N, d)
        distances = self.centroids.square().sum(1) - 2 * standard @ self.centroids.T  # (N, k), without |x|^2
        nearest: list[int] = distances.numpy().argmin(axis=1).tolist()
        return nearest


def _features(lm: LanguageModel, examples: Sequence[Example]) -> Tensor:
    return context_states(lm, [example.context for example in examples])  # (N, d) fp64
