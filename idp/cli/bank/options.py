"""What commands that write a bank share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idp.errors import OutputError

Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new bank.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the bank that is in OUT.")]


def check_new(out: Path, overwrite: bool) -> None:
    """Check that no bank would be lost.

    Raises:
        OutputError: there is one in the folder.
    """
    from idp.bank.storage import holds_bank

    if holds_bank(out) and not overwrite:
        raise OutputError(f"there is a bank in {out} already: choose another folder, or replace it with --overwrite.")
