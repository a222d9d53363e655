"""Cutting the tuning data into parts that get a prompt each, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idp.errors import TaskError
from idp.select.features import mean_embeddings
from idp.tune.examples import Example

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Partition", "clusters"]

_STARTS = 10


@dataclass(frozen=True, eq=False)
class Partition:
    """Centroids of k-means on standardised mean input embeddings of contexts.

    Attributes:
        mean: of the features, `(d,)`.
        std: of the features, `(d,)`.
        centroids: `(k, d)`, of standardised features, in the order of their size, the largest cluster first.

    Example:
        >>> parts = Partition.fit(lm, tuning, 8, seed=0)  # doctest: +SKIP
        >>> parts.assign(lm, held_out)[:3]  # doctest: +SKIP
        [4, 0, 7]
    """

    mean: Tensor
    std: Tensor
    centroids: Tensor

    @classmethod
    def fit(cls, lm: LanguageModel, examples: Sequence[Example], k: int, seed: int) -> Partition:
        """Find the clusters of the examples' contexts, the best of ten starts.

        Args:
            lm: the model whose input embeddings are the features.
            examples: what to partition.
            k: number of clusters.
            seed: of the starts.

        Raises:
            TaskError: fewer distinct contexts than clusters, or less than one cluster.
        """
        from sklearn.cluster import KMeans  # type: ignore[import-untyped, unused-ignore]

        features = _features(lm, examples)  # (N, d)
        distinct = len(torch.unique(features, dim=0))
        if not 1 <= k <= distinct:
            raise TaskError(f"cannot make {k} clusters of {distinct} different contexts; ask for 1 to {distinct}.")
        mean, std = features.mean(dim=0), features.std(dim=0, correction=0)  # (d,), (d,)
        std = torch.where(std > 1e-12, std, torch.ones_like(std))
        found = KMeans(k, n_init=_STARTS, random_state=seed).fit(((features - mean) / std).numpy())
        sizes = torch.bincount(torch.as_tensor(found.labels_, dtype=torch.long), minlength=k)  # (k,)
        order = sizes.argsort(descending=True, stable=True)
        return cls(mean, std, torch.as_tensor(found.cluster_centers_, dtype=torch.float64)[order])

    def assign(self, lm: LanguageModel, examples: Sequence[Example]) -> list[int]:
        """Return the nearest centroid of each example's context; equal distances go to the first."""
        standard = (_features(lm, examples) - self.mean) / self.std  # (N, d)
        distances = (
            standard.square().sum(1, keepdim=True) - 2 * standard @ self.centroids.T + self.centroids.square().sum(1)
        )  # (N, k)
        return [int(nearest) for nearest in distances.numpy().argmin(axis=1)]


def clusters(lm: LanguageModel, examples: Sequence[Example], k: int, seed: int) -> list[int]:
    """Partition examples by k-means on their contexts; see `Partition`.

    Args:
        lm: the model whose input embeddings are the features.
        examples: what to partition.
        k: number of clusters.
        seed: of k-means.

    Returns:
        A cluster, 0 to `k - 1` from the largest to the smallest, for each example.
    """
    return Partition.fit(lm, examples, k, seed).assign(lm, examples)


def _features(lm: LanguageModel, examples: Sequence[Example]) -> Tensor:
    return mean_embeddings(lm, [example.context for example in examples])  # (N, d) fp64
