"""What a command does when something goes wrong: one line on stderr and an exit code, the traceback on request."""

from __future__ import annotations

import functools
import textwrap
import traceback
from collections.abc import Callable
from typing import ParamSpec

import typer

from idp.errors import IdpError

P = ParamSpec("P")

FAILED = 1
"""Exit code of an error that the user can do something about."""
UNFORESEEN = 70
"""Exit code of anything else (EX_SOFTWARE of sysexits.h); 2 is a wrong command line."""
INTERRUPTED = 130
"""Exit code after Ctrl-C (128 + SIGINT)."""

RESUMABLE = "interrupted; what was computed is kept, run the same command again to go on"


def guarded(interrupted: str = "interrupted") -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make a command end with one line and an exit code instead of a traceback.

    Args:
        interrupted: what to say after Ctrl-C.

    Returns:
        A decorator for commands; their parameter `debug` decides whether tracebacks are shown.
    """

    def decorate(command: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(command)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            debug = bool(kwargs.get("debug", False))
            try:
                command(*args, **kwargs)
            except (BrokenPipeError, typer.Exit, typer.Abort, typer.BadParameter):
                raise  # typer's own, and the end of whoever read our output (`| head`): typer ends quietly
            except KeyboardInterrupt:
                raise _end(interrupted, INTERRUPTED, debug) from None
            except IdpError as error:
                raise _end(f"error: {error}", FAILED, debug) from error
            except Exception as error:
                raise _end(*_unforeseen(error), debug) from error

        return run

    return decorate


def complain(message: str) -> None:
    """Print one line on stderr, whatever line ends the message has."""
    line = " ".join(message.split())
    typer.secho(line, err=True, fg=typer.colors.RED if line.startswith("error") else typer.colors.YELLOW)


def _end(message: str, code: int, debug: bool) -> typer.Exit:
    if debug:
        traceback.print_exc()
    complain(message)
    return typer.Exit(code)


def _unforeseen(error: Exception) -> tuple[str, int]:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "error: out of memory; try a smaller --batch-size or another --device.", FAILED
    said = textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" ...").rstrip(": ")
    return f"error: {said} (not foreseen; run again with --debug to see where it happened)", UNFORESEEN
