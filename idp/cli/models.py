"""`idp models`: models that have a short name, where each comes from, and `idp models fetch`, which gets them here."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idp.cli.errors import guarded
from idp.cli.options import Debug, Json
from idp.cli.quiet import hush

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idp.model.fetch import Fetched
    from idp.model.spec import ModelSpec

app = typer.Typer(name="models", invoke_without_command=True)


@app.callback()
@guarded()
def models_command(context: typer.Context, json: Json = False, debug: Debug = False) -> None:
    """List the aliases of models: ours, and those of your own models.yaml. Or fetch some of them."""
    if context.invoked_subcommand is not None:
        if json:
            raise typer.BadParameter(f"put it behind {context.invoked_subcommand}.", param_hint="--json")
        return
    hush(debug)
    _print(model_rows(places=True), json)


@app.command("fetch")
@guarded()
def fetch_command(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Aliases (see: idp models) or hub ids.")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Download models for later, and print where each is.

    What is here already is not downloaded again.
    """
    hush(debug)
    from idp.cli.progress import progress
    from idp.model.aliases import resolve
    from idp.model.fetch import fetch

    specs = [resolve(name) for name in names]  # a wrong name should not cost a download
    with progress(debug) as observer:
        fetched = [fetch(spec, observer) for spec in specs]
    _print([_fetched_row(each) for each in fetched], json)


def model_rows(places: bool = False) -> list[dict[str, Any]]:
    """A row for each alias; with `places` it says where the model comes from, and whether it is here."""
    from idp.model.aliases import aliases

    return [_row(spec) | (_whereabouts(spec) if places else {}) for spec in aliases().values()]


def _row(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "compression": spec.compression,
        "bank": spec.bank is not None,
        "tested": spec.verified,
        "note": spec.note,
    }


def _whereabouts(spec: ModelSpec) -> dict[str, Any]:
    from idp.model.fetch import is_here

    return {"from": _place(spec), "here": is_here(spec)}


def _place(spec: ModelSpec) -> str:
    """Hub id, package or folder; of a model that is made here what it is made from."""
    if spec.recipe is not None:
        return f"{spec.dense} by recipe {spec.recipe}"
    if spec.variant is not None:
        return f"{spec.dense} by {spec.variant}, on first use"
    if spec.package is not None:
        return spec.package.source
    return spec.source if spec.gguf is None else f"{spec.source}/{spec.gguf}"


def _fetched_row(fetched: Fetched) -> dict[str, Any]:
    return {
        "name": fetched.name,
        "path": str(fetched.path),
        "sha256": fetched.sha256,
        "from": fetched.origin,
    }


def _print(rows: Sequence[dict[str, Any]], json: bool) -> None:
    from idp.cli.tables import print_rows

    typer.echo(jsonlib.dumps(rows, indent=2, ensure_ascii=False)) if json else print_rows(rows)
