"""The files of a model that are here: a folder of its own, or the hub's cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from rich.filesize import decimal

from idp.errors import ModelError
from idp.model.spec import ModelSpec

__all__ = ["cached_folder", "files_to_read", "has_weights", "require_space"]

_INDEX = "model.safetensors.index.json"
_BESIDE = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
"""Files of a configuration and a tokenizer."""


def cached_folder(spec: ModelSpec) -> Path | None:
    """Find the folder of a model without asking the hub: its own, or of a hub id the copy in the hub's cache."""
    from huggingface_hub import snapshot_download

    if spec.is_local:
        return Path(spec.source) if Path(spec.source).is_dir() else None
    try:
        return Path(snapshot_download(spec.source, local_files_only=True))
    except (OSError, ValueError):
        return None


def has_weights(spec: ModelSpec) -> bool:
    """Whether all files of a model's weights are here; pickles do not count."""
    folder = cached_folder(spec)
    if folder is None:
        return False
    return all((folder / name).is_file() for name in ([spec.gguf] if spec.gguf else _parts(folder)))


def _parts(folder: Path) -> list[str]:
    """The files that weights are in, which an index names where they are many."""
    try:
        content = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        return sorted(set(content["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ["model.safetensors"]


def files_to_read(spec: ModelSpec) -> list[str]:
    """Patterns of the files on the hub that loading a model reads.

    Example:
        >>> files_to_read(ModelSpec("m", "org/m", gguf="m.Q4_0.gguf"))
        ['m.Q4_0.gguf']
    """
    code = ["*.py"] if spec.trust_remote_code else []
    return _weights(spec) if spec.gguf else [*_weights(spec), *_BESIDE, *code]


def _weights(spec: ModelSpec) -> list[str]:
    return [spec.gguf] if spec.gguf else ["model*.safetensors", *(["*.bin"] if spec.allow_pickle else [])]


def require_space(spec: ModelSpec) -> None:
    """Find out whether what has to be downloaded fits onto the disk, where the hub tells its size.

    Raises:
        ModelError: it does not; the message says how much is needed and how much is free.
    """
    needed = _bytes_to_download(spec)
    if needed == 0:
        return
    from huggingface_hub.constants import HF_HUB_CACHE

    free = shutil.disk_usage(_existing(Path(HF_HUB_CACHE))).free
    if needed > free:
        raise ModelError(
            f"{spec.name} needs {decimal(needed)} for its download, and {HF_HUB_CACHE} has {decimal(free)} free. "
            "Make room, or set HF_HOME to a folder on a larger disk."
        )


def _bytes_to_download(spec: ModelSpec) -> int:
    """Size of the weights that are not here yet; 0 for a model that is here or of which the hub tells nothing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if spec.is_local or HF_HUB_OFFLINE or _is_cached(spec):
        return 0
    try:
        files = snapshot_download(spec.source, allow_patterns=_weights(spec), dry_run=True)
    # This is a courtesy; whatever is wrong with the hub is told by the download itself.
    except Exception:
        return 0
    return sum(file.file_size or 0 for file in files if file.will_download)


def _is_cached(spec: ModelSpec) -> bool:
    """Whether weights are here already, or half of them, which the download goes on with."""
    from huggingface_hub import try_to_load_from_cache

    names = (spec.gguf,) if spec.gguf else ("model.safetensors", _INDEX)
    return any(isinstance(try_to_load_from_cache(spec.source, name), str) for name in names)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that there is."""
    return next(each for each in (folder, *folder.parents) if each.exists())
