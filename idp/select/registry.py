"""Selectors by name: the package's own and any other package's, through the same entry points."""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from idp.bank.bank import PromptBank
from idp.errors import SelectorError, suggest
from idp.select.base import Selector
from idp.specs import parse_spec

__all__ = ["AUTO", "DEFAULTS", "GROUP", "default_selector", "get_selector", "selector_names"]

GROUP = "idp.selectors"
"""Entry point group that selectors are declared in; a package adds its own there."""

AUTO = "auto"
"""Stands for the default."""

_HINTS = {
    AUTO: "it stands for the best router that a bank holds; name one here, such as router:features=state.",
    "mix": "mixtures are arms of idp eval and rows of idp select compare.",
}

DEFAULTS = ("router:features=state", "router")
"""The default is the first of these that the bank knows.

On held-out questions the first covers 18 % of the distance from the static prompt to the best one in hindsight, the
second 10 %. It takes 0.9 % of a request of 32 tokens that generates 64, the second 0.1 to 0.5 % (docs/benchmarks.md).
"""


def selector_names() -> list[str]:
    """Return the names of all installed selectors, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def get_selector(name: str, *, seed: int = 0, **options: Any) -> Selector:
    """Make a selector by its name.

    Args:
        name: one of `selector_names()`, with options behind a colon if wanted: `attention:calibrate=center`; a selector
            that is an option of another one stands in square brackets (`idp.specs`).
        seed: for selectors that draw at random; the others have nothing to seed and are not given it.
        options: the selector's own options.

    Returns:
        The selector, not yet fitted.

    Raises:
        SelectorError: no selector has that name, it has no such option, or its package is broken.

    Example:
        >>> get_selector("attention", calibrate="zscore").name
        'attention'
    """
    spec = name
    name, written = parse_spec(name)
    options = {**written, **options}
    point = _find(name)
    try:
        made = point.load()
    except Exception as error:  # a stranger's package may fail in any way
        raise SelectorError(f"selector {name!r} of {point.value} cannot be imported: {error}.") from error
    if not (isinstance(made, type) and issubclass(made, Selector)):
        raise SelectorError(f"selector {name!r} of {point.value} is not a class derived from idp.select.Selector.")
    accepted = set(inspect.signature(made).parameters)
    if unknown := sorted(set(options) - accepted):
        raise SelectorError(f"selector {name!r} has no option {unknown[0]!r}. {suggest(unknown[0], accepted)}")
    defaults = {"seed": seed} if "seed" in accepted else {}
    try:
        selector: Selector = made(**(defaults | options))
    except (TypeError, ValueError) as error:
        raise SelectorError(f"selector {name!r} does not take these options: {error}.") from error
    selector.spec = spec
    return selector


def default_selector(bank: PromptBank) -> str | None:
    """Return the best of `DEFAULTS` that a bank holds the state of; None where it holds none of them.

    Example:
        >>> default_selector(PromptBank.load("tuned/sparse"))
        'router:features=state'
    """
    return next((name for name in DEFAULTS if name in bank.selectors), None)


def _find(name: str) -> EntryPoint:
    if name in _HINTS:
        raise SelectorError(f"{name!r} is no selector: {_HINTS[name]}")
    points = tuple(entry_points(group=GROUP, name=name))
    if not points:
        raise SelectorError(f"unknown selector {name!r}. {suggest(name, selector_names())}")
    return points[0]
