"""Cutting the tuning data into parts that get a prompt each, without labels."""

from __future__ import annotations

import torch
from torch import Tensor

from idp.errors import TaskError

__all__ = ["clusters"]

_STARTS = 4


def clusters(features: Tensor, k: int, seed: int) -> Tensor:
    """Find parts by k-means on standardised features, the largest first.

    Args:
        features: `(N, f)`; see `idp.tune.features`. Clusters of hidden states agree with what is asked about, those of
            mean input embeddings divide by form (a question, a story) before they divide by matter.
        k: number of parts.
        seed: of the starts.

    Returns:
        The part of each row, `(N,)`.

    Raises:
        TaskError: fewer different rows than parts, or less than one part.

    Example:
        >>> clusters(torch.tensor([[0.0], [5.0], [0.1]]), 2, seed=0).tolist()
        [0, 1, 0]
    """
    from sklearn.cluster import KMeans  # type: ignore[import-untyped, unused-ignore]

    distinct = len(torch.unique(features, dim=0))
    if not 1 <= k <= distinct:
        raise TaskError(f"cannot make {k} parts of {distinct} different inputs; ask for 1 to {distinct}.")
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0)  # (f,), (f,)
    std = torch.where(std > 1e-12, std, torch.ones_like(std))
    found = KMeans(k, n_init=_STARTS, random_state=seed).fit(((features - mean) / std).numpy())
    labels = torch.as_tensor(found.labels_).long()  # (N,)
    sizes = torch.bincount(labels, minlength=k)  # (k,)
    ranks = sizes.argsort(descending=True, stable=True).argsort()  # (k,) largest is 0
    return ranks[labels]
