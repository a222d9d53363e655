"""`idp bank show`: what is in a bank."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idp.cli.bank.describe import fingerprint, kind, num_virtual_tokens
from idp.cli.errors import guarded
from idp.cli.options import Debug, Json
from idp.cli.quiet import hush

if TYPE_CHECKING:
    from idp.bank.bank import PromptBank
    from idp.bank.prompt import Prompt

COLUMNS = {
    "init": "init",
    "objective": "objective",
    "examples": "examples",
    "steps": "steps",
    "held_out_loss": "held-out loss",
    "of": "of",
    "plus": "plus",
    "minus": "minus",
    "times": "times",
    "note": "note",
}
"""Keys of provenance that have a column where a prompt has them, and its header."""


@guarded()
def show_command(
    bank: Annotated[
        str,
        typer.Argument(metavar="BANK", help="Folder, YAML file of text prompts, or a name of: idp bank list."),
    ],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a bank: its model, its selectors, where it comes from, and its prompts."""
    hush(debug)
    from idp.bank.bank import PromptBank

    opened = PromptBank.load(bank)
    if json:
        typer.echo(jsonlib.dumps(_described(opened), indent=2, ensure_ascii=False))
    else:
        _print(opened)


def _described(bank: PromptBank) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint(bank),
        "selectors": {name: state.config for name, state in bank.selectors.items()},
        "provenance": dict(bank.provenance),
        "prompts": [
            {
                "name": prompt.name,
                "kind": kind(prompt),
                "num_virtual_tokens": num_virtual_tokens(prompt),
                "text": prompt.text,
                "digest": prompt.digest,
                "provenance": dict(prompt.provenance),
            }
            for prompt in bank
        ],
    }


def _print(bank: PromptBank) -> None:
    from rich.console import Console
    from rich.text import Text

    from idp.cli.tables import print_rows

    facts: list[tuple[str, Any]] = [
        ("model", bank.fingerprint.describe() if bank.fingerprint else "any"),
        ("selectors", ", ".join(bank.selectors) or "none fitted"),
        *bank.provenance.items(),
    ]
    console = Console()
    for key, value in facts:
        console.print(Text.assemble((f"{key}: ", "bold"), _said(value)))
    console.print()
    print_rows(_columns(bank))


def _said(value: Any) -> str:
    """A fact in words; what has too much to say for a line is left to `--json`."""
    if isinstance(value, str):
        return value
    plain = value if isinstance(value, dict) else {}
    short = {key: item for key, item in plain.items() if isinstance(item, (str, int, float))}
    if not short:
        return jsonlib.dumps(value, ensure_ascii=False)
    return ", ".join(f"{key} {item:,}" if isinstance(item, int) else f"{key} {item}" for key, item in short.items())


def _columns(bank: PromptBank) -> list[dict[str, Any]]:
    """A row a prompt; a column that would be empty, or say what is said of the whole bank, is left out."""
    rows = [_row(prompt) for prompt in bank]
    common = {header: bank.provenance.get(key) for key, header in COLUMNS.items()}
    filled = [header for header in rows[0] if any(row[header] not in (None, common.get(header)) for row in rows)]
    return [{header: row[header] for header in filled} for row in rows]


def _row(prompt: Prompt) -> dict[str, Any]:
    known = {header: prompt.provenance.get(key) for key, header in COLUMNS.items()}
    return {
        "name": prompt.name,
        "kind": kind(prompt),
        "tokens": num_virtual_tokens(prompt),
        **known,
        "text": prompt.text,
    }
