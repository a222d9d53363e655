"""What a quantised model needs before it can be loaded: a known method, and the package that implements it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from idp.errors import MissingExtraError, ModelError, suggest

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["is_known", "known_methods", "quantization_method", "require_extras", "require_known"]

_NEEDS = {
    "gptq": (("gptqmodel", "optimum"), "gptq"),
    "awq": (("gptqmodel",), "gptq"),
    "compressed-tensors": (("compressed_tensors",), None),
    "bitsandbytes": (("bitsandbytes",), "bnb"),
    "gguf": (("gguf",), None),
}
"""Quantisation method -> modules needed to load it, and our extra that brings them."""


def quantization_method(config: PreTrainedConfig) -> str:
    """Return `"gptq"`, `"compressed-tensors"` ..., or an empty string for a model that is not quantised.

    Example:
        >>> from types import SimpleNamespace
        >>> quantization_method(SimpleNamespace(quantization_config={"quant_method": "awq"}))
        'awq'
    """
    settings: Any = getattr(config, "quantization_config", None) or {}
    told: dict[str, Any] = settings if isinstance(settings, dict) else vars(settings)
    method = told.get("quant_method") or ""
    if not method and (told.get("load_in_4bit") or told.get("load_in_8bit")):
        return "bitsandbytes"  # its old checkpoints do not name it
    return str(getattr(method, "value", method))


def require_extras(name: str, method: str) -> None:
    """Check that what a quantised model needs is installed, before gigabytes are downloaded.

    Args:
        name: of the model.
        method: how it was quantised, see `quantization_method`.

    Raises:
        MissingExtraError: it is not.
    """
    modules, extra = _NEEDS.get(method, ((), None))
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        command = f"pip install 'idp[{extra}]'" if extra else f"pip install {' '.join(missing)}"
        raise MissingExtraError(f"{name} is quantised with {method}, which needs {' and '.join(missing)}: {command}")


def require_known(name: str, method: str) -> None:
    """Check that `transformers` knows how a model was quantised: else it would take packed numbers for weights.

    Raises:
        ModelError: it does not; the methods that it knows are listed.
    """
    if not is_known(method):
        raise ModelError(
            f"{name} is quantised with {method!r}, which transformers does not know. {suggest(method, known_methods())}"
        )


def is_known(method: str) -> bool:
    """Whether models of a method can be loaded; an empty string stands for models that are not quantised.

    Example:
        >>> is_known("gptq"), is_known("squeezed")
        (True, False)
    """
    return not method or method in _NEEDS or method in known_methods()


def known_methods() -> tuple[str, ...]:
    """The quantisation methods that the installed `transformers` loads, those that other packages added included."""
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    return tuple(dict.fromkeys(name.removesuffix("_4bit").removesuffix("_8bit") for name in AUTO_QUANTIZER_MAPPING))
