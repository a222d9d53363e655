"""What a fitted selector has learned, in a form that a bank can keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["SelectorState"]


@dataclass(frozen=True, eq=False)
class SelectorState:
    """A fitted selector as data: options and small facts as JSON values, learned numbers as tensors.

    Attributes:
        config: JSON values.
        tensors: name to tensor; kept detached, contiguous, on the CPU.

    Example:
        >>> SelectorState(config={"index": 2}).config["index"]
        2
    """

    config: dict[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take own copies, so that a bank does not change with the selector it came from."""
        object.__setattr__(self, "config", dict(self.config))
        own = {name: value.detach().cpu().clone().contiguous() for name, value in self.tensors.items()}
        object.__setattr__(self, "tensors", own)
