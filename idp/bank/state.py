"""What a fitted selector has learned, in a form that a bank can keep."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from idp.errors import SelectorError
from idp.files import atomic_write_bytes

__all__ = ["SelectorState"]

_CONFIG = "idp-selector"
"""Under which name the config stands in the file's header."""


@dataclass(frozen=True, eq=False)
class SelectorState:
    """A fitted selector as data: options and small facts as JSON values, learned numbers as tensors.

    Attributes:
        config: JSON values.
        tensors: name to tensor; kept detached, contiguous, on the CPU.
        copy: whether to keep copies, so that a bank does not change with the selector it came from; not for tensors
            that nobody else has, such as those that are mapped from a file.

    Example:
        >>> SelectorState(config={"index": 2}).config["index"]
        2
    """

    config: dict[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    copy: InitVar[bool] = True

    def __post_init__(self, copy: bool) -> None:
        """Take what is the state's own."""
        object.__setattr__(self, "config", dict(self.config))
        own = {name: _copied(value) if copy else value for name, value in self.tensors.items()}
        object.__setattr__(self, "tensors", own)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the state as one file of its own: for what is learned while a bank is used.

        A file is replaced at once: whoever reads it finds the old state or the new one.

        Args:
            path: the file, `.safetensors` by custom; its folder is made where it is missing.

        Returns:
            The path.

        Raises:
            SelectorError: the config holds something that JSON has no form for.
            OutputError: the file cannot be written.

        Example:
            >>> bandit.state().save("feedback.safetensors")  # doctest: +SKIP
        """
        try:
            config = json.dumps(self.config, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise SelectorError(f"the state cannot be written as JSON: {error}.") from error
        atomic_write_bytes(path, save(dict(self.tensors), {_CONFIG: config}))
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SelectorState:
        """Read a state that `save` wrote.

        Raises:
            SelectorError: no such file, or not a state.
        """
        try:
            with safe_open(path, framework="pt") as file:
                config = json.loads((file.metadata() or {})[_CONFIG])
                return cls(config, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  (no mapping)
        except FileNotFoundError as error:
            raise SelectorError(f"no selector's state at {path}: is the path right?") from error
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise SelectorError(f"{path} is not a selector's state: {error}.") from error


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone().contiguous()
