"""A safetensors file whose tensors are read one by one, when they are asked for."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from idp.errors import BankError

__all__ = ["Place", "TensorFile", "tensor_sha256"]

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CHUNK = 1 << 20
_MAX_HEADER = 100_000_000
"""Bytes; the limit of safetensors itself."""


class Place(NamedTuple):
    """Where a tensor is in its file.

    Attributes:
        dtype: of its numbers.
        shape: of the tensor.
        start: its first byte, counted from the file's.
        nbytes: how many there are.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    nbytes: int


class TensorFile:
    """Opens a safetensors file by its header alone.

    `safe_open` of safetensors maps the file: each small read then counts as the 64 kB and more around it, and a file
    that was cut short since ends the process. `read` asks for the bytes of one tensor instead, and notices. Large
    tensors, of which a part is used, are mapped.

    The file stays open: one that replaces it on disk changes nothing here.

    Args:
        path: the file.

    Attributes:
        path: the file.
        nbytes: its size when it was opened.

    Raises:
        BankError: the file cannot be opened.

    Example:
        >>> file = TensorFile(Path("my-bank/bank.safetensors"))  # doctest: +SKIP
        >>> file.read(file.places()["prompt/static"]).shape  # doctest: +SKIP
        torch.Size([16, 128])
    """

    def __init__(self, path: Path) -> None:
        """Open the file and read nothing yet."""
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY)
            self.nbytes = os.fstat(self._file).st_size
        except OSError as error:
            raise BankError(f"{path} cannot be read: {error.strerror}. The bank is incomplete.") from error

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def places(self) -> dict[str, Place]:
        """Read from the header where each tensor is.

        Raises:
            BankError: not a safetensors file, or one that was cut short.
        """
        try:
            return self._read_header()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BankError(f"{self.path} is not a safetensors file: {type(error).__name__} {error}.") from error

    def _read_header(self) -> dict[str, Place]:
        length = int.from_bytes(os.pread(self._file, 8, 0), "little")
        if not 0 < length <= min(self.nbytes - 8, _MAX_HEADER):
            raise ValueError(f"a header of {length} bytes in a file of {self.nbytes}")
        header: dict[str, Any] = json.loads(os.pread(self._file, length, 8))
        header.pop("__metadata__", None)
        return {name: _place(name, entry, 8 + length, self.nbytes) for name, entry in header.items()}

    def read(self, place: Place) -> Tensor:
        """Read a tensor into memory of its own.

        Raises:
            BankError: the file was cut short since it was opened, or cannot be read.
        """
        if not place.nbytes:
            return torch.empty(place.shape, dtype=place.dtype)
        data = bytearray().join(self._chunks(place.start, place.nbytes))
        return torch.frombuffer(data, dtype=place.dtype).reshape(place.shape)

    def map(self, place: Place) -> Tensor:
        """Map a tensor: its numbers are read by the system when they are used; writing to it does not reach the file.

        Raises:
            BankError: the file was cut short since it was opened.
        """
        if not place.nbytes:
            return torch.empty(place.shape, dtype=place.dtype)
        with os.fdopen(os.dup(self._file), "rb") as stream:
            try:
                mapped = np.memmap(stream, np.uint8, mode="c", offset=place.start, shape=(place.nbytes,))
            except ValueError as error:
                raise self._cut_short() from error
        return torch.frombuffer(mapped, dtype=place.dtype).reshape(place.shape)

    def sha256(self, place: Place | None = None) -> str:
        """Return the checksum of a tensor's bytes, or of the whole file, read past any map.

        Raises:
            BankError: as for `read`.
        """
        digest = hashlib.sha256()
        for chunk in self._chunks(0, self.nbytes) if place is None else self._chunks(place.start, place.nbytes):
            digest.update(chunk)
        return digest.hexdigest()

    def _chunks(self, start: int, nbytes: int) -> Iterator[bytes]:
        for at in range(start, start + nbytes, _CHUNK):
            wanted = min(_CHUNK, start + nbytes - at)
            try:
                chunk = os.pread(self._file, wanted, at)
            except OSError as error:
                raise BankError(f"{self.path} cannot be read: {error.strerror}.") from error
            if len(chunk) < wanted:
                raise self._cut_short()
            yield chunk

    def _cut_short(self) -> BankError:
        return BankError(f"{self.path} was cut short since it was opened: make or copy the bank again.")


def tensor_sha256(tensor: Tensor) -> str:
    """Return the checksum of a tensor's bytes as they stand in a file."""
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data).hexdigest()


@lru_cache
def _shared(shape: tuple[int, ...]) -> tuple[int, ...]:
    """One object for a shape that many tensors have."""
    return shape


def _place(name: str, entry: dict[str, Any], data: int, size: int) -> Place:
    """Check what a header says of a tensor; `data` is where the first one begins, `size` that of the file."""
    dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], _shared(tuple(entry["shape"])), entry["data_offsets"]
    nbytes = math.prod(shape) * dtype.itemsize
    if begin < 0 or end - begin != nbytes or data + end > size:
        raise ValueError(f"tensor {name!r} is said to be at bytes {begin} to {end} of {size - data}")
    return Place(dtype, shape, data + begin, nbytes)
