"""An approximate index of vectors: each in half a byte a number or less, all of them compared at once."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idp.errors import needing

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

__all__ = ["Codes", "Places", "has_faiss"]

Places: TypeAlias = npt.NDArray[np.int64]

_TRAINED_ON = 4096
"""Vectors that codes are learned from: faiss uses no more for 16 centroids."""


def has_faiss() -> bool:
    """Whether the library of the index is installed."""
    return importlib.util.find_spec("faiss") is not None


_PAIRS_FROM = 128
"""Width from which on two numbers share a code: fewer codes would tell too little of 100,000 vectors."""


class Codes:
    """Finds vectors with a large inner product by codes of them, which are compared 32 at a time in registers.

    A vector is cut into pairs of numbers, or single ones where it is narrow, and each replaced by the nearest of 16
    that are learned (product quantisation). That all codes are looked at keeps what is found independent of how vectors
    lie to each other, which a graph of neighbours is not.

    Args:
        index: of faiss.

    Attributes:
        tensor: the index as bytes, `(bytes,)` uint8.

    Raises:
        MissingExtraError: faiss is not installed.

    Source: product quantisation with lookup in registers, arXiv 1812.09162 (Andre et al. 2018), as `PQ..x4fs` of
    faiss, arXiv 2401.08281.

    Example:
        >>> codes = Codes.build(keys, np.arange(len(keys)))  # doctest: +SKIP
        >>> codes.search(queries, 64)[0]  # doctest: +SKIP
        array([7, 31, 912, ...])
    """

    def __init__(self, index: Any) -> None:
        """Take an index of faiss."""
        self._index = index
        self.tensor = torch.from_numpy(_library().serialize_index(index))

    @classmethod
    def build(cls, keys: Tensor, places: Places) -> Self:
        """Index some rows of `keys`, in one thread, so that the same rows give the same bytes.

        Args:
            keys: `(m, d)`.
            places: which of them, `(k,)`, at least one; they are what `search` returns.
        """
        faiss, width = _library(), keys.shape[1]
        vectors = np.ascontiguousarray(keys[torch.from_numpy(places)].float().numpy())  # (k, d)
        parts = width // 2 if width >= _PAIRS_FROM and width % 2 == 0 else width
        index = faiss.index_factory(width, f"IDMap,PQ{parts}x4fs", faiss.METRIC_INNER_PRODUCT)
        with _one_thread(faiss):
            index.train(np.resize(vectors, (max(len(vectors), _TRAINED_ON), width)))
            index.add_with_ids(vectors, places)
        return cls(index)

    @classmethod
    def open(cls, tensor: Tensor, width: int, count: int) -> Self:
        """Read an index.

        Args:
            tensor: its bytes, `(bytes,)` uint8.
            width: of the vectors.
            count: every place has to be below it.

        Raises:
            ValueError: not an index of such vectors.
        """
        faiss = _library()
        try:
            index = faiss.deserialize_index(tensor.numpy())
        except (RuntimeError, AssertionError) as error:
            raise ValueError("the bytes are no index of faiss") from error
        if not isinstance(index, faiss.IndexIDMap) or index.d != width:
            raise ValueError(f"not an index of vectors of width {width}")
        places = faiss.vector_to_array(index.id_map)
        if not len(places) or places.min() < 0 or places.max() >= count:
            raise ValueError(f"an index of {len(places)} vectors for {count} places")
        return cls(index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Tensor, count: int) -> list[Places]:
        """Find the `count` places whose vectors have the largest inner products, or nearly so.

        Args:
            queries: `(N, d)`.
            count: places for each.

        Returns:
            For each query its places, ascending.
        """
        # One at a time: several at once are searched in another way, which is no faster and may cut ties elsewhere.
        rows = queries.float().numpy()[:, None]  # (N, 1, d)
        found = [self._index.search(row, min(count, len(self)))[1][0] for row in rows]
        return [np.sort(places[places >= 0]) for places in found]


def _library() -> Any:
    with needing("an approximate index needs faiss", "scale"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of types that SWIG makes
        import faiss
    return faiss


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
