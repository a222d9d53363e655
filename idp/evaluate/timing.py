"""How long a call took."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """The result of ``call()`` and the seconds it took."""
    begun = time.perf_counter()
    result = call()
    return result, time.perf_counter() - begun
