"""Cutting the tuning data into parts that get a prompt each, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from idp.errors import TaskError
from idp.select.features import mean_embeddings
from idp.tune.examples import Example

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Partition"]

_STARTS = 10


@dataclass(frozen=True, eq=False)
class Partition:
    """Clusters of mean input embeddings of contexts, and which part each of them belongs to.

    Attributes:
        mean: of the features, `(d,)`.
        std: of the features, `(d,)`.
        centroids: `(c, d)`, of standardised features.
        sizes: examples of each cluster, `(c,)`.
        parts: the part of each cluster, `(c,)`; the largest part is 0.

    Example:
        >>> fine = Partition.fit(lm, tuning, 96, seed=0)  # doctest: +SKIP
        >>> parts = fine.merged(cluster_gradients(lm, static, tuning, fine.assign(lm, tuning)), 12)  # doctest: +SKIP
        >>> parts.assign(lm, held_out)[:3]  # doctest: +SKIP
        [4, 0, 7]
    """

    mean: Tensor
    std: Tensor
    centroids: Tensor
    sizes: Tensor
    parts: Tensor

    @classmethod
    def fit(cls, lm: LanguageModel, examples: Sequence[Example], k: int, seed: int) -> Partition:
        """Find the clusters of the examples' contexts by k-means, each a part of its own.

        Args:
            lm: the model whose input embeddings are the features.
            examples: what to partition.
            k: number of clusters.
            seed: of the starts.

        Raises:
            TaskError: fewer distinct contexts than clusters, or less than one cluster.
        """
        features = _features(lm, examples)  # (N, d)
        distinct = len(torch.unique(features, dim=0))
        if not 1 <= k <= distinct:
            raise TaskError(f"cannot make {k} clusters of {distinct} different contexts; ask for 1 to {distinct}.")
        mean, std = features.mean(dim=0), features.std(dim=0, correction=0)  # (d,), (d,)
        std = torch.where(std > 1e-12, std, torch.ones_like(std))
        centroids, labels = _k_means((features - mean) / std, k, seed)
        sizes = torch.bincount(labels, minlength=k)  # (k,)
        order = sizes.argsort(descending=True, stable=True)
        return cls(mean, std, centroids[order], sizes[order], torch.arange(k))

    def merged(self, gradients: Tensor, k: int, seed: int = 0) -> Partition:
        """Merge clusters into the `k` parts in which what the loss asks of a prompt differs least.

        K-means on the directions of the gradients, a cluster weighing as much as it has examples. Clusters of
        embeddings alone spend most parts on differences of form that ask for no other prompt.

        Args:
            gradients: of each cluster, `(c, g)`; see `cluster_gradients`.
            k: number of parts.
            seed: of the starts.

        Raises:
            TaskError: fewer distinct gradients than parts, or not one gradient a cluster.
        """
        if len(gradients) != len(self.centroids):
            raise TaskError(f"{len(gradients)} gradients for {len(self.centroids)} clusters; give one each.")
        directions = normalize(gradients.double(), dim=1)  # (c, g)
        distinct = len(torch.unique(directions, dim=0))
        if not 1 <= k <= distinct:
            raise TaskError(f"cannot merge {distinct} different clusters into {k}; ask for 1 to {distinct}.")
        _, labels = _k_means(directions, k, seed, self.sizes)
        sizes = torch.zeros(k, dtype=self.sizes.dtype).index_add_(0, labels, self.sizes)  # (k,)
        rank = sizes.argsort(descending=True, stable=True).argsort()  # (k,)
        return replace(self, parts=rank[labels])

    def assign(self, lm: LanguageModel, examples: Sequence[Example]) -> list[int]:
        """Return the part of each example's nearest centroid; equal distances go to the first."""
        standard = (_features(lm, examples) - self.mean) / self.std  # (N, d)
        distances = (
            standard.square().sum(1, keepdim=True) - 2 * standard @ self.centroids.T + self.centroids.square().sum(1)
        )  # (N, c)
        nearest = torch.as_tensor(distances.numpy().argmin(axis=1))  # (N,)
        return [int(part) for part in self.parts[nearest]]


def _k_means(points: Tensor, k: int, seed: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The best of ten starts: centroids `(k, d)` and the label of each point `(N,)`."""
    from sklearn.cluster import KMeans  # type: ignore[import-untyped, unused-ignore]

    found = KMeans(k, n_init=_STARTS, random_state=seed).fit(
        points.numpy(), sample_weight=None if weights is None else weights.numpy()
    )
    return torch.as_tensor(found.cluster_centers_, dtype=torch.float64), torch.as_tensor(found.labels_).long()


def _features(lm: LanguageModel, examples: Sequence[Example]) -> Tensor:
    return mean_embeddings(lm, [example.context for example in examples])  # (N, d) fp64
