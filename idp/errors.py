"""The errors a user may meet: each says what is wrong and what to do about it."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = [
    "BankError",
    "IdpError",
    "MissingExtraError",
    "ModelError",
    "OutputError",
    "PromptTooLongError",
    "RecipeError",
    "SelectorError",
    "TaskError",
    "brief",
    "needing",
    "suggest",
]


class IdpError(Exception):
    """Base of every error of this package; its message is one clear line.

    The command line prints the message alone and exits with a non-zero code; ``--debug`` adds the traceback.
    """


class BankError(IdpError):
    """A prompt or a prompt bank is broken, or belongs to another model."""


class ModelError(IdpError):
    """A model cannot be found, loaded or run."""


class SelectorError(IdpError):
    """A selector is unknown, not fitted, or was given options or data it cannot use."""


class PromptTooLongError(IdpError):
    """A prompt and its input do not fit into the model's context together."""


class RecipeError(IdpError):
    """A recipe for compressing is unknown, or cannot be carried out on a model."""


class TaskError(IdpError):
    """An evaluation task, suite or arm is unknown or unusable."""


class OutputError(IdpError):
    """A result cannot be written: the folder is read-only, missing, or the disk is full."""


class MissingExtraError(IdpError):
    """An optional dependency is not installed; the message gives the ``pip install`` line."""


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """Import optional dependencies within it.

    Args:
        what: what needs them, to be read before a colon.
        extra: of this package, that installs them.

    Raises:
        MissingExtraError: one is not installed.

    Example:
        >>> with needing("pictures need matplotlib", "plot"):
        ...     import matplotlib_is_not_here
        Traceback (most recent call last):
        ...
        idp.errors.MissingExtraError: pictures need matplotlib: pip install 'idp[plot]'
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(f"{what}: pip install 'idp[{extra}]'") from error


_LONGEST_REASON = 240  # characters
_MOST_LISTED = 40


def brief(error: BaseException) -> str:
    """Return an error's message on one line of bounded length, or its kind if it has no message.

    Example:
        >>> brief(ValueError("two   words")), brief(KeyError())
        ('two words', 'KeyError')
    """
    return textwrap.shorten(str(error), width=_LONGEST_REASON, placeholder=" ...") or type(error).__name__


def suggest(name: str, known: Iterable[str]) -> str:
    """Name the near misses of an unknown name, then everything that is known if that is not too much.

    Args:
        name: what the user typed.
        known: the names that would have been accepted.

    Returns:
        Sentences to put behind "unknown ...".

    Example:
        >>> suggest("ruoter", ["none", "router", "static"])
        "Did you mean 'router'? Known: none, router, static."
    """
    names = sorted(set(known))
    listed = "None are known."
    if names:
        more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
        listed = f"Known: {', '.join(names[:_MOST_LISTED])}{more}."
    folded = {candidate.lower(): candidate for candidate in names}
    close = [folded[match] for match in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.6)]
    if not close:
        return listed
    guess = f"Did you mean {' or '.join(repr(match) for match in close)}?"
    return guess if len(names) > _MOST_LISTED else f"{guess} {listed}"
