"""How much memory a model will take, told by the types and shapes of its stored tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from idp.model.compression import Compression
from idp.model.weights import FLOATS, StoredTensor

__all__ = ["Held", "held"]

_SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_UNPACKED = ("", "compressed-tensors")
"""Methods whose weights are ordinary matrices once the model was run."""

_WORD = 32  # bits; numbers lie in words of this size


@dataclass(frozen=True)
class Held:
    """What a loaded model holds.

    Attributes:
        floats: numbers in the type that the model is loaded in.
        packed_bytes: what stays as it is stored.
    """

    floats: int
    packed_bytes: int

    def bytes(self, itemsize: int) -> int:
        """Size in a type of so many bytes.

        Example:
            >>> Held(floats=1000, packed_bytes=500).bytes(4)
            4500
        """
        return self.floats * itemsize + self.packed_bytes


def held(tensors: Iterable[StoredTensor], compression: Compression) -> Held:
    """Estimate what a model will hold of its stored tensors; buffers and activations are not counted."""
    floats, packed = 0, 0
    for tensor in tensors:
        if tensor.dtype in FLOATS:
            floats += tensor.numel
        elif compression.method in _UNPACKED:
            floats += _numbers(tensor, compression)
        else:
            packed += tensor.numel * _SIZES.get(tensor.dtype, 1)
    return Held(floats, packed)


def _numbers(tensor: StoredTensor, compression: Compression) -> int:
    """The numbers that a tensor stands for when it is unpacked."""
    if tensor.dtype == "I32" and tensor.name.endswith("packed"):
        return tensor.numel * (_WORD // (compression.bits or _WORD))
    return tensor.numel
