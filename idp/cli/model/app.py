"""The commands of `idp model`."""

from __future__ import annotations

import typer

from idp.cli.model.damage import damage_command
from idp.cli.model.info import info_command

app = typer.Typer(name="model", help="Models: how they were compressed, and what it cost.", no_args_is_help=True)


app.command("info")(info_command)
app.command("damage")(damage_command)
