"""What a folder, a file or a hub id says about where a model is."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from idp.errors import ModelError

__all__ = ["Place", "hub_file", "is_path", "place_of"]

_GGUF = ".gguf"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILE = re.compile(rf"({_HUB_ID.pattern})/([\w./-]+\{_GGUF})")


class Place(NamedTuple):
    """Where a model is.

    Attributes:
        source: a folder, or a hub id.
        gguf: the file's name there where weights are kept as GGUF.
    """

    source: str
    gguf: str | None = None

    @property
    def path(self) -> str:
        """What one would type to mean the same."""
        return self.source if self.gguf is None else f"{self.source}/{self.gguf}"


def place_of(text: str) -> Place | None:
    """Find out where a model is, without downloading anything.

    Args:
        text: a folder that `save_pretrained()` wrote or that holds one `.gguf`, a `.gguf` file, a hub id, or a hub
            id with the name of a `.gguf` file in it.

    Returns:
        The place, or None for what is neither a path nor a hub id. A hub id is not looked up.

    Raises:
        ModelError: a folder or file that is not there, or holds no model.

    Example:
        >>> place_of("org/model/model.Q4_0.gguf")
        Place(source='org/model', gguf='model.Q4_0.gguf')
    """
    path = Path(text).expanduser()
    if path.is_file():
        return _file(path)
    if path.exists():
        return _folder(path)
    if place := hub_file(text):
        return place
    if is_path(text):
        raise ModelError(
            f"there is no folder {path}. Give the folder that save_pretrained() wrote, a .gguf file, or a hub id."
        )
    return Place(text) if _HUB_ID.fullmatch(text) else None


def hub_file(text: str) -> Place | None:
    """Read a hub id with the name of a `.gguf` file in it; None for anything else.

    Example:
        >>> hub_file("org/model/model.Q4_0.gguf"), hub_file("org/model")
        (Place(source='org/model', gguf='model.Q4_0.gguf'), None)
    """
    found = _HUB_FILE.fullmatch(text)
    return None if found is None else Place(found[1], found[2])


def is_path(text: str) -> bool:
    """Whether a text can only be meant as a path, whether or not there is something.

    Example:
        >>> is_path("./model"), is_path("org/model")
        (True, False)
    """
    return text.startswith((".", "~", os.sep)) or text.count("/") > 1 or text.endswith(("/", _GGUF))


def _file(path: Path) -> Place:
    if path.suffix != _GGUF:
        raise ModelError(f"{path} is no .gguf file. Give the folder of a model, a .gguf file, or a hub id.")
    return Place(str(path.parent), path.name)


def _folder(path: Path) -> Place:
    if (path / "config.json").is_file():
        return Place(str(path))
    files = sorted(path.glob(f"*{_GGUF}"))
    if not files:
        raise ModelError(f"{path} holds no model (no config.json). Give the folder that save_pretrained() wrote.")
    if len(files) > 1:
        raise ModelError(f"{path} holds {len(files)} .gguf files: name one of them, such as {files[0]}.")
    return Place(str(path), files[0].name)
