"""`idp models`: models that have a short name, and where each comes from."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Any

import typer

from idp.cli.errors import guarded
from idp.cli.options import Debug, Json
from idp.cli.quiet import hush

if TYPE_CHECKING:
    from idp.model.aliases import ModelSpec


@guarded()
def models_command(json: Json = False, debug: Debug = False) -> None:
    """List the aliases of models: ours, and those of your own models.yaml."""
    hush(debug)
    from idp.cli.tables import print_rows

    rows = model_rows(places=True)
    typer.echo(jsonlib.dumps(rows, indent=2, ensure_ascii=False)) if json else print_rows(rows)


def model_rows(places: bool = False) -> list[dict[str, Any]]:
    """A row for each alias; with `places` it says where the model comes from."""
    from idp.model.aliases import aliases

    return [_row(spec) | ({"from": _place(spec)} if places else {}) for spec in aliases().values()]


def _row(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "compression": spec.compression,
        "bank": spec.bank is not None,
        "tested": spec.verified,
        "note": spec.note,
    }


def _place(spec: ModelSpec) -> str:
    """Hub id or folder; of a model that is made here what it is made from."""
    if spec.recipe is not None:
        return f"{spec.dense} by recipe {spec.recipe}"
    return spec.source if spec.gguf is None else f"{spec.source}/{spec.gguf}"
