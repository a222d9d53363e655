"""`idp bank import`: PEFT adapters and YAML files become a bank."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idp.cli.bank.common import open_model
from idp.cli.bank.options import Overwrite, check_new
from idp.cli.errors import guarded
from idp.cli.options import Debug, Device, DType, Json
from idp.cli.quiet import hush

if TYPE_CHECKING:
    from idp.bank.bank import PromptBank
    from idp.bank.prompt import Prompt


@guarded()
def import_command(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new bank.")],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE", help="PEFT adapters (or a folder of them) and YAML files of text prompts, in order."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="The model the prompts fit: their width is checked, and the bank says so."),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option("--name", "-n", help="What to call a prompt; give one for each, in order.")
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    dtype: DType = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a bank of PEFT adapters (prompt tuning, P-tuning) and text prompts."""
    hush(debug)
    check_new(out, overwrite)
    from idp.cli.progress import progress

    with progress(debug) as observer:
        from idp.bank.exchange import import_bank

        import_bank(sources, names=name or ())  # a wrong path should not cost the wait for the model
        fingerprint = None if model is None else open_model(observer, model, device, dtype).fingerprint
        bank = import_bank(sources, names=name or (), fingerprint=fingerprint)
        bank.save(out)
        if fingerprint is None and any(prompt.kind == "soft" for prompt in bank):
            observer.note("without --model the bank does not say which model its soft prompts fit.")
    typer.echo(jsonlib.dumps(_described(bank, out), indent=2, ensure_ascii=False) if json else _lines(bank, out))


def _described(bank: PromptBank, out: Path) -> dict[str, Any]:
    return {
        "bank": str(out),
        "fingerprint": None if bank.fingerprint is None else bank.fingerprint.to_dict(),
        "prompts": [{"name": each.name, "kind": each.kind, "provenance": dict(each.provenance)} for each in bank],
    }


def _lines(bank: PromptBank, out: Path) -> str:
    return "\n".join([*(f"{each.name}: {_content(each)}" for each in bank), f"Bank: {out}"])


def _content(prompt: Prompt) -> str:
    if prompt.shape is None:
        return "text"
    length, width = prompt.shape
    return f"{length} vectors of width {width}"
