"""`idp bank merge`: one bank of several."""

from __future__ import annotations

from typing import Annotated

import typer

from idp.cli.bank.options import Out, Overwrite, check_new
from idp.cli.errors import complain, guarded
from idp.cli.options import Debug
from idp.cli.quiet import hush, undisturbed


@guarded()
def merge_command(
    out: Out,
    banks: Annotated[list[str], typer.Argument(metavar="BANK", help="Banks, as for: idp bank show.")],
    prefix: Annotated[
        bool, typer.Option("--prefix", help="Call every prompt BANK/NAME, not only those that clash.")
    ] = False,
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="Merge banks of different models; the new one is for the first's.")
    ] = False,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Put the prompts of several banks into one.

    Prompts of one name are called BANK/NAME; what is there already is left out. Selectors have to be fitted again.
    """
    hush(debug)
    check_new(out, overwrite)
    from idp.bank.bank import PromptBank
    from idp.bank.merge import merge_banks

    opened = {label: PromptBank.load(path) for label, path in zip(labels(banks), banks, strict=True)}
    notes: list[str] = []
    with undisturbed(notes.append, debug):
        merged = merge_banks(opened, prefix=prefix, allow_mismatch=allow_mismatch)
    for note in notes:
        complain(f"note: {note}")
    typer.echo(f"Bank of {len(merged)} prompts: {merged.save(out)}")


def labels(paths: list[str]) -> list[str]:
    """What banks are called: by the last part of their paths where that tells them apart, else by the whole.

    Example:
        >>> labels(["tuned/sparse", "tuned/gptq"])
        ['sparse', 'gptq']
    """
    from idp.bank.storage import bank_path

    files = [bank_path(path).resolve() for path in paths]
    short = [file.stem if file.is_file() else file.name for file in files]
    return [name if short.count(name) == 1 else path for name, path in zip(short, paths, strict=True)]
