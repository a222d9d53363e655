"""Which device to run on, and in which floating-point type."""

from __future__ import annotations

import torch

from idp.errors import ModelError, suggest
from idp.model.cpu_speed import faster_cpu_dtype

__all__ = ["resolve_device", "resolve_dtype"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CPU_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device asked for, or the best one there is.

    Args:
        device: `"auto"` (CUDA, else Apple's MPS, else the CPU) or anything `torch.device` takes.

    Raises:
        ModelError: the device is unknown, or there is none of its kind.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        return torch.device(_best_device())
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"unknown device {str(device)!r}: use auto, cpu, cuda, cuda:0 or mps.") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device {str(chosen)!r} is not available: torch sees {torch.cuda.device_count()} CUDA devices."
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("no device 'mps' here; use cpu.")
    return chosen


def resolve_dtype(dtype: str | torch.dtype = "auto", device: str | torch.device = "cpu") -> torch.dtype:
    """Return the floating-point type asked for, or the fastest exact enough one for a device.

    A CPU without bfloat16 instructions emulates them, some fifty times slower than float32, so float32 is the
    choice there. One that has them is timed once, and gets bfloat16 if that is at least 1.2 times as fast
    (`idp.model.cpu_speed`). A GPU from before 2020 gets float16, everything else bfloat16.

    Args:
        dtype: `"auto"`, `"float32"`, `"bfloat16"`, `"float16"` or a `torch.dtype`.
        device: where the model will run.

    Raises:
        ModelError: the type is unknown or not a floating-point type of 16 or 32 bits.

    Example:
        >>> resolve_dtype("float32", "cpu")
        torch.float32
    """
    if dtype == "auto":
        return _best_dtype(torch.device(device))
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ModelError(f"unknown dtype {name!r}. {suggest(name, ['auto', *_DTYPES])}")
    return _DTYPES[name]


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _best_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return faster_cpu_dtype() if cpu_has_bf16() else torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def cpu_has_bf16() -> bool:
    """Tell whether the CPU multiplies bfloat16 matrices in hardware."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(flag, False) for flag in _CPU_BF16_FLAGS)
