"""What pictures are drawn with."""

from __future__ import annotations

from typing import Any

from idp.errors import MissingExtraError

__all__ = ["require_matplotlib"]


def require_matplotlib() -> Any:
    """Return what pictures are drawn with.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib import figure
    except ImportError as error:
        raise MissingExtraError("pictures are drawn by matplotlib; install it: pip install 'idp[plot]'.") from error
    return figure
