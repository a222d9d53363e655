"""Where a long computation stands, in one safetensors file that only the same computation reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from idp.files import atomic_write_bytes

__all__ = ["load_tensors", "save_tensors"]

_LOG = logging.getLogger(__name__)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], key: str) -> None:
    """Write a checkpoint whole or not at all.

    Args:
        path: the file.
        tensors: all that the rest of the computation depends on.
        key: what identifies the computation; only one with the same key continues from this file.

    Raises:
        OutputError: the file cannot be written.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    atomic_write_bytes(path, save(plain, metadata={"format": "idp-tune", "key": key}))


def load_tensors(path: Path, key: str) -> dict[str, Tensor] | None:
    """Read a checkpoint, if there is one of the computation `key`; another's, or a broken one, is passed over.

    Args:
        path: the file.
        key: what identifies the computation.

    Returns:
        Its tensors, or None to begin anew.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("key")
            if found == key:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        _LOG.warning("%s is the checkpoint of another run; beginning anew.", path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        _LOG.warning("cannot continue from %s (%s); beginning anew.", path, error)
    return None
