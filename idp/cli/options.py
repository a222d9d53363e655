"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idp.errors import SelectorError
from idp.specs import split_spec

DEBUG_KEY = "idp.debug"
DEFAULT_MODEL = "smollm2-135m-3bit"
"""What the main commands run where no model is named: a real one, fetched and compressed on first use."""


def _either_place(context: typer.Context, value: bool) -> bool:
    """Make `idp --debug eval` and `idp eval --debug` the same: nested contexts share their `meta`."""
    context.meta[DEBUG_KEY] = value or context.meta.get(DEBUG_KEY, False)
    return bool(context.meta[DEBUG_KEY])


Debug = Annotated[
    bool, typer.Option("--debug", callback=_either_place, help="Show library messages, and tracebacks of errors.")
]
Model = Annotated[str, typer.Option("--model", "-m", help="Alias (see: idp models), folder, .gguf file or hub id.")]
Bank = Annotated[
    str | None,
    typer.Option(
        "--bank", help="Folder of a bank, or a YAML file of text prompts. Default: the model's own, else the text bank."
    ),
]
AllowMismatch = Annotated[
    bool, typer.Option("--allow-mismatch", help="Use a bank although it was made for another model.")
]
AllowPickle = Annotated[
    bool,
    typer.Option("--allow-pickle", help="Read weights that are kept as a pickle; plain tensors of it and no code."),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with a model, which can do anything.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps ...")]
DType = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
SelectorName = Annotated[
    str | None, typer.Option("--selector", "-s", help="Default: auto, the best router that the bank holds, or none.")
]
Limit = Annotated[int | None, typer.Option("--limit", "-l", min=1, help="Items a task. Default: all.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of local task files, read in place of the hub (docs/suites.md)."),
]
FitItems = Annotated[
    int, typer.Option("--fit-items", min=1, help="Training items that selectors without a state learn from.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]


def rows_at_once(text: str) -> int | None:
    """Read a batch size: a number of rows, or `auto`, which is None.

    Example:
        >>> rows_at_once("8"), rows_at_once("auto")
        (8, None)

    Raises:
        typer.BadParameter: neither.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither a number of rows, 1 or more, nor auto.")
    return int(text)


def _check_rows(text: str) -> str:
    rows_at_once(text)
    return text


BatchSize = Annotated[
    str,
    typer.Option(
        "--batch-size",
        "-b",
        callback=_check_rows,
        help="Rows run at once; auto finds a size, and shrinks it.",
    ),
]


def split_names(text: str) -> tuple[str, ...]:
    """Split a comma-separated list; a piece like `score=all` is a further option of the name before it.

    Example:
        >>> split_names("router, attention:calibrate=center,queries=last")
        ('router', 'attention:calibrate=center,queries=last')
        >>> split_names("none,cascade:first=[keys:keys=learned],share=0.1")
        ('none', 'cascade:first=[keys:keys=learned],share=0.1')

    Raises:
        typer.BadParameter: no name is left, or a bracket has no partner.
    """
    try:
        pieces = [piece.strip() for piece in split_spec(text)]
    except SelectorError as error:
        raise typer.BadParameter(str(error)) from error
    names: list[str] = []
    for piece in filter(None, pieces):
        option, equals, _ = piece.partition("=")
        if names and ":" in names[-1] and equals and ":" not in option:
            names[-1] += f",{piece}"
        else:
            names.append(piece)
    if not names:
        raise typer.BadParameter("give one or more names, separated by commas.")
    return tuple(names)


def check_names(text: str | None) -> str | None:
    """Check a comma-separated list while the command line is read."""
    if text is not None:
        split_names(text)
    return text


Suite = Annotated[
    str | None,
    typer.Option(
        "--suite",
        callback=check_names,
        help="Suites of tasks, separated by commas (idp list suites); --tasks adds to them.",
    ),
]
