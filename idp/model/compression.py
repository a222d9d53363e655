"""How a model was compressed, as its configuration tells it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idp.errors import ModelError

__all__ = ["Compression", "compression_of", "settings_beside"]


@dataclass(frozen=True)
class Compression:
    """How weights were quantised.

    Attributes:
        method: as the checkpoint names it: `gptq`, `awq`, `compressed-tensors`, `bitsandbytes` ...; empty without one.
        bits: of a quantised weight; None where the configuration does not say.
        group_size: weights that share a scale; None for one scale a channel or a tensor.
        detail: what else is worth knowing, in a few words.
    """

    method: str = ""
    bits: int | None = None
    group_size: int | None = None
    detail: str = ""

    def describe(self) -> str:
        """Return all of it in one phrase.

        Example:
            >>> Compression("gptq", 4, 128, "act order").describe()
            'gptq, 4 bits, groups of 128, act order'
        """
        if not self.method:
            return "none"
        bits = "" if self.bits is None else f"{self.bits} bits"
        groups = "" if self.group_size is None else f"groups of {self.group_size}"
        return ", ".join(part for part in (self.method, bits, groups, self.detail) if part)


def compression_of(config: Mapping[str, Any]) -> Compression:
    """Read a model's configuration (`config.json`).

    Raises:
        ModelError: what it says of the compression is of another form.

    Example:
        >>> compression_of({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64}}).bits
        4
    """
    settings = config.get("quantization_config") or config.get("compression_config") or {}
    if not isinstance(settings, Mapping):
        raise ModelError(f"the configuration's quantization_config is {settings!r}, and no mapping of names to values.")
    method = str(settings.get("quant_method", ""))
    return _READERS.get(method, _plain)(method, settings)


def settings_beside(folder: Path) -> dict[str, Any]:
    """Return what AutoGPTQ wrote into a file of its own before transformers knew GPTQ, as `config.json` has it today.

    Raises:
        ModelError: the file cannot be read.
    """
    file = folder / "quantize_config.json"
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}.") from error
    if not isinstance(settings, dict):
        raise ModelError(f"{file} holds no settings of a quantisation.")
    return {"quant_method": "gptq", **settings}


def _plain(method: str, settings: Mapping[str, Any]) -> Compression:
    """GPTQ, AWQ and whatever else counts bits and groups under these names; -1 is a group a channel."""
    bits, group = settings.get("bits"), settings.get("group_size")
    detail = "act order" if settings.get("desc_act") else ""
    return Compression(method, _number(bits), _number(group), detail)


def _bitsandbytes(method: str, settings: Mapping[str, Any]) -> Compression:
    if settings.get("load_in_4bit"):
        return Compression("bitsandbytes", 4, None, str(settings.get("bnb_4bit_quant_type", "")))
    return Compression("bitsandbytes", 8 if settings.get("load_in_8bit") else None)


def _compressed_tensors(method: str, settings: Mapping[str, Any]) -> Compression:
    groups = [group.get("weights") or {} for group in (settings.get("config_groups") or {}).values()]
    sparsity = settings.get("sparsity_config") or {}
    kinds = ["float" for weights in groups if weights.get("type") == "float"]
    words = [*dict.fromkeys(kinds), settings.get("format"), sparsity.get("sparsity_structure")]
    detail = ", ".join(str(word) for word in words if word and word != "dense")
    return Compression(method, _only(groups, "num_bits"), _only(groups, "group_size"), detail)


def _only(groups: Sequence[Mapping[str, Any]], key: str) -> int | None:
    """The value that all groups of layers have; None where they differ."""
    values = {_number(weights.get(key)) for weights in groups}
    return values.pop() if len(values) == 1 else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


_READERS: dict[str, Callable[[str, Mapping[str, Any]], Compression]] = {
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed_tensors,
}
