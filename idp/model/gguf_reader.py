"""Reading GGUF files fast: the head in one sweep over its bytes, and once for a whole load.

gguf's own reader slices an array that is mapped from the file, which is slow, six times for each token and merge; and
transformers has the head read anew for configuration, tokenizer and weights.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType

__all__ = ["QuickReader", "quick_gguf", "read_gguf"]

_LONGEST_ARRAY = 1 << 22
"""Most values of a field. Vocabularies have up to 2 ** 18; a broken file may claim as many as it has bytes."""

_AT_A_TIME = 1 << 17
"""Weights that are unpacked at a time: half a megabyte, which stays in a core's cache."""

_Field = tuple[int, list[Any], list[int], list[Any]]
"""A field as gguf's reader makes it: size in bytes, parts, which of the parts are values, types."""

_LOCK = threading.RLock()
_in_use = False


class QuickReader(GGUFReader):
    """Do what gguf's reader does, fifty times as fast; what should lie behind the end of the file is an error.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no GGUF file, was cut off, or speaks of sizes that cannot be.
        KeyError: a field is there twice.

    Example:
        >>> QuickReader("model.Q4_0.gguf").fields["general.architecture"].contents()  # doctest: +SKIP
        'llama'
    """

    @property
    def data(self) -> Any:
        """The bytes of the file: mapped, but as a plain array, of which slices are ten times as fast."""
        return self._bytes

    @data.setter
    def data(self, mapped: Any) -> None:
        self._bytes = mapped.view(np.ndarray)

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        self._require(offset, np.dtype(dtype).itemsize * int(count))
        return super()._get(offset, dtype, count, override_order)

    def _require(self, offset: int, size: int) -> None:
        """Refuse what lies behind the end of the file: numpy would hand out what there is of it."""
        if size and offset + size > len(self._bytes):
            raise ValueError(f"{size} bytes should lie at {offset}, and it ends at {len(self._bytes)}")

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> _Field:
        count = int(self._get(orig_offs + 4, np.uint64)[0]) if raw_type == GGUFValueType.ARRAY else 0
        kind = GGUFValueType(self._get(orig_offs, np.uint32)[0]) if count else None
        if count > _LONGEST_ARRAY:
            raise ValueError(f"an array at {orig_offs} should have {count} values")
        if kind in (None, GGUFValueType.ARRAY):
            field: _Field = super()._get_field_parts(orig_offs, raw_type)
            return field
        end, parts = self._values(orig_offs + 12, kind, count)
        step = len(parts) // count
        head = [self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)]
        return end - orig_offs, head + parts, list(range(1 + step, 2 + len(parts), step)), [GGUFValueType.ARRAY, kind]

    def _values(self, offset: int, kind: GGUFValueType, count: int) -> tuple[int, list[Any]]:
        """Where the values of an array end, and their parts; those of a string are its length and its bytes."""
        if kind != GGUFValueType.STRING:
            values = self._get(offset, self.gguf_scalar_to_np[kind], count)
            return offset + values.nbytes, list(values[:, None])
        stored = np.dtype(np.uint64).newbyteorder(self.byte_order)
        length_at, lengths, texts = struct.Struct(f"{stored.str[0]}Q").unpack_from, [], []
        for _ in range(count):
            self._require(offset, 8)
            (length,) = length_at(self._bytes, offset)
            begin, offset = offset + 8, offset + 8 + length
            self._require(begin, length)
            lengths.append(length)
            texts.append(self._bytes[begin:offset])
        pairs = zip(list(np.array(lengths, stored)[:, None]), texts, strict=True)
        return offset, [part for pair in pairs for part in pair]


def read_gguf(path: str | os.PathLike[str]) -> GGUFReader:
    """Read the head of a GGUF file; within `quick_gguf` once, as long as the file stays as it is.

    Raises:
        OSError, ValueError, KeyError: as for `QuickReader`.
        ArithmeticError, RecursionError: it speaks of sizes or of arrays in arrays that cannot be.

    Example:
        >>> read_gguf("model.Q4_0.gguf").tensors[0].name  # doctest: +SKIP
        'token_embd.weight'
    """
    found = os.stat(path)
    read = _read if _in_use else _read.__wrapped__
    return read(os.path.realpath(path), found.st_size, found.st_mtime_ns)


@functools.cache
def _read(path: str, size: int, changed: int) -> GGUFReader:
    """Read a file of this size and time of change."""
    with np.errstate(over="raise"):
        try:
            return QuickReader(path)
        except (AttributeError, TypeError):  # gguf's reader does not look as it did
            return GGUFReader(path)


@contextmanager
def quick_gguf() -> Iterator[None]:
    """Have GGUF files read fast within it, by transformers too, and the head of each once.

    For that time names in gguf and transformers stand for others that do the same. Where a version of them has no such
    name, or calls it in another way, it stays as it is. One thread at a time is within, and others wait.

    Example:
        >>> with quick_gguf():
        ...     AutoConfig.from_pretrained("folder", gguf_file="model.Q4_0.gguf")  # doctest: +SKIP
    """
    global _in_use
    with _LOCK, ExitStack() as stack:
        if not _in_use:  # else by this thread, which is within it already
            for module, name, make in _REPLACED:
                stack.enter_context(_replaced(module, name, make))
            stack.callback(_leave)
            _in_use = True
        yield


def _leave() -> None:
    global _in_use
    _in_use = False
    _read.cache_clear()


@contextmanager
def _replaced(module: str, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Put what `make` makes of it in place of a name, if it is there and is called as it was when this was written."""
    try:
        place = importlib.import_module(module)
        plain = getattr(place, name)
    except (ImportError, AttributeError):
        yield
        return
    quick = make(plain)
    if _fits(quick, plain):
        setattr(place, name, quick)
    try:
        yield
    finally:
        setattr(place, name, plain)


def _fits(quick: Callable[..., Any], plain: Callable[..., Any]) -> bool:
    """Whether one can be called as the other is: by the same names, or by any."""
    try:
        takes, given = (list(inspect.signature(each).parameters) for each in (quick, plain))
    except (TypeError, ValueError):  # it does not say how it is called
        return False
    return takes in (given, ["args", "kwargs"])


def _reader(plain: Any) -> Callable[..., Any]:
    def read(path: str | os.PathLike[str], mode: str = "r") -> Any:
        return read_gguf(path) if mode == "r" else plain(path, mode)

    return read


def _values(plain: Any) -> Callable[..., Any]:
    """Decode a string at once: transformers makes a list of its bytes first."""

    def parse(_value: Any, data_type: Any) -> Any:
        if not isinstance(data_type, list) or len(data_type) > 2 or data_type[-1] == GGUFValueType.ARRAY:
            return plain(_value, data_type)
        return _value.tobytes().decode() if data_type[-1] == GGUFValueType.STRING else _value.item()

    return parse


def _rows(plain: Any) -> Callable[..., Any]:
    """Unpack many rows at a time, straight to where they belong: gguf takes 16, and copies all of them at the end."""

    def apply(func: Callable[[Any], Any], arr: Any, otype: Any, oshape: tuple[int, ...]) -> Any:
        rows = arr.reshape(-1, arr.shape[-1])
        out = np.empty((len(rows), oshape[-1]), otype)
        step = max(_AT_A_TIME // oshape[-1], 1)
        for start in range(0, len(rows), step):
            out[start : start + step] = func(rows[start : start + step])
        return out.reshape(oshape)

    return apply


def _bar(plain: Any) -> Any:
    """The bar of transformers that its `disable_progress_bar` silences."""
    from transformers.utils import logging

    return getattr(logging, "tqdm", plain)


_CONVERTING = "transformers.modeling_gguf_pytorch_utils"
_REPLACED = (
    ("gguf", "GGUFReader", _reader),
    ("gguf", "get_tensor_name_map", functools.cache),  # made anew for each module of the model
    ("gguf.quants", "_apply_over_grouped_rows", _rows),
    (_CONVERTING, "_gguf_parse_value", _values),
    (_CONVERTING, "tqdm", _bar),
)
"""Modules, names in them, and what makes what shall stand there of what does."""
