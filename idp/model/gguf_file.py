"""What a GGUF file says about its model, told by its head; the weights are not read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idp.errors import ModelError, brief
from idp.model.compression import Compression
from idp.model.needs import require_extras

__all__ = ["GgufHead", "read_head"]

_PLAIN = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True)
class GgufHead:
    """The head of a GGUF file.

    Attributes:
        architecture: as llama.cpp calls it: `llama`, `qwen3` ...
        compression: how most of its quantised numbers are kept.
        values: numbers that the tensors stand for.
        tensors: how many there are.
        adds_bos: whether a text begins with the token for it; None where the file does not say.
    """

    architecture: str
    compression: Compression
    values: int
    tensors: int
    adds_bos: bool | None


def read_head(path: Path) -> GgufHead:
    """Read the head of a GGUF file.

    Raises:
        ModelError: it is no GGUF file, or was cut off.
        MissingExtraError: the package gguf is not installed.

    Example:
        >>> read_head(Path("model.Q4_0.gguf")).compression.describe()  # doctest: +SKIP
        'gguf, 4 bits, groups of 32, Q4_0'
    """
    require_extras(path.name, "gguf")
    from idp.model.gguf_reader import read_gguf

    try:
        reader = read_gguf(path)
        numbers = Counter[str]()
        for tensor in reader.tensors:
            numbers[tensor.tensor_type.name] += int(tensor.n_elements)
        return GgufHead(
            architecture=str(_field(reader, "general.architecture") or "unknown"),
            compression=_compression(numbers),
            values=numbers.total(),
            tensors=len(reader.tensors),
            adds_bos=_field(reader, "tokenizer.ggml.add_bos_token"),
        )
    except (OSError, ValueError, IndexError, KeyError, ArithmeticError, RecursionError) as error:
        reason = brief(error)
        raise ModelError(f"{path} is no GGUF file, or was cut off: {reason}. Download or make it again.") from error


def _field(reader: Any, name: str) -> Any:
    field = reader.fields.get(name)
    return None if field is None else field.contents()


def _compression(numbers: Counter[str]) -> Compression:
    """Tell how the largest quantised share is kept: `Q4_K` keeps 256 numbers in a block of 144 bytes, 4.5 bits each."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    packed = [kind for kind, _ in numbers.most_common() if kind not in _PLAIN]
    if not packed:
        return Compression("gguf", None, None, ", ".join(sorted(numbers)))
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[packed[0]]]
    return Compression("gguf", size * 8 // block, block, ", ".join(packed))
