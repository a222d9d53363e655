"""How selectors are written on the command line: `name:option=value,option=[name:option=value]`."""

from __future__ import annotations

import contextlib
from typing import Any

from idp.errors import SelectorError

__all__ = ["parse_spec", "split_spec"]

_DEPTH = {"[": 1, "]": -1}


def split_spec(text: str) -> list[str]:
    """Split at the commas that no square brackets enclose.

    Raises:
        SelectorError: a bracket has no partner.

    Example:
        >>> split_spec("a=1,b=[c:d=2,e=3]")
        ['a=1', 'b=[c:d=2,e=3]']
    """
    pieces, depth = [""], 0
    for letter in text:
        depth += _DEPTH.get(letter, 0)
        if depth < 0:
            raise SelectorError(f"{text!r} closes a bracket that it never opened: write option=[name:option=value].")
        if letter == "," and not depth:
            pieces.append("")
        else:
            pieces[-1] += letter
    if depth:
        raise SelectorError(f"{text!r} opens a bracket that it never closes: write option=[name:option=value].")
    return pieces


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """Split `name:option=value,...` into the name and its options.

    A value in square brackets is taken as it is, commas and all: a selector that belongs to another one. Others are
    numbers where they can be read as one.

    Raises:
        SelectorError: a bracket has no partner, or an option no name or no value.

    Example:
        >>> parse_spec("cascade:then=[likelihood:score=mdl,per=task],share=0.25")
        ('cascade', {'then': 'likelihood:score=mdl,per=task', 'share': 0.25})
    """
    name, _, rest = spec.partition(":")
    pairs = [part.partition("=") for part in split_spec(rest) if part]
    if broken := next((option for option, equals, value in pairs if not (option and equals and value)), None):
        raise SelectorError(
            f"cannot read the option {broken!r} of selector {spec!r}: write name:option=value,option=value."
        )
    return name, {option.strip(): _value(value.strip()) for option, _, value in pairs}


def _value(text: str) -> int | float | str:
    """Take off one pair of brackets, or read a number where one is written."""
    if text.startswith("["):
        return _without_brackets(text)
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _without_brackets(text: str) -> str:
    inner = text[1:-1]
    try:
        if not text.endswith("]"):
            raise SelectorError
        split_spec(inner)  # "[a],[b]" begins and ends with brackets that are no pair
    except SelectorError:
        raise SelectorError(f"{text!r} goes on behind its closing bracket: write option=[name:option=value].") from None
    return inner
