"""What pictures are drawn with."""

from __future__ import annotations

from typing import Any

from idp.errors import needing

__all__ = ["require_matplotlib"]


def require_matplotlib() -> Any:
    """Return what pictures are drawn with.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with needing("pictures need matplotlib", "plot"):
        from matplotlib import figure
    return figure
