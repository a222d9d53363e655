"""`idp bank list`: which banks there are."""

from __future__ import annotations

import json as jsonlib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from idp.cli.bank.describe import fingerprint, kind
from idp.cli.errors import complain, guarded
from idp.cli.options import Debug, Json
from idp.cli.quiet import hush

Row = dict[str, Any]


@guarded()
def list_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to look, and one level below.")] = Path("."),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the banks that come with the package, and those in a folder."""
    hush(debug)
    from idp.bank.find import banks_in, shipped_banks

    found = [_row(name, path, shipped=True) for name, path in shipped_banks().items()]
    found += [_row(str(path), path, shipped=False) for path in banks_in(folder)]
    typer.echo(jsonlib.dumps(found, indent=2, ensure_ascii=False)) if json else _print(found)


def _row(name: str, path: Path, shipped: bool) -> Row:
    """What is known about a bank; one that is broken does not hide the others."""
    from idp.bank.bank import PromptBank
    from idp.errors import BankError

    try:
        bank = PromptBank.load(path)
    except BankError as error:
        return {"name": name, "shipped": shipped, "problem": str(error)}
    return {
        "name": name,
        "shipped": shipped,
        "prompts": len(bank),
        "kinds": dict(Counter(kind(prompt) for prompt in bank)),
        "num_virtual_tokens": sorted({prompt.shape[0] for prompt in bank if prompt.shape is not None}),
        "fingerprint": fingerprint(bank),
        "selectors": sorted(bank.selectors),
    }


def _print(rows: list[Row]) -> None:
    from idp.cli.tables import print_rows

    print_rows([_cells(row) for row in rows if "problem" not in row])
    for row in rows:
        if "problem" in row:
            complain(f"note: {row['problem']}")


def _cells(row: Row) -> Row:
    lengths, model = row["num_virtual_tokens"], row["fingerprint"]
    return {
        "name": row["name"],
        "prompts": ", ".join(f"{count} {name}" for name, count in row["kinds"].items()),
        "tokens": "-".join(str(length) for length in sorted({*lengths[:1], *lengths[-1:]})),
        "model": f"{model['architecture']} {model['weights'][:8]}" if model else "any",
        "selectors": ", ".join(row["selectors"]),
    }
