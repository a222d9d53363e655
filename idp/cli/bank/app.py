"""The commands of `idp bank`."""

from __future__ import annotations

import typer

from idp.cli.bank.build import build_command
from idp.cli.bank.export import export_command
from idp.cli.bank.import_ import import_command
from idp.cli.bank.list import list_command
from idp.cli.bank.merge import merge_command
from idp.cli.bank.show import show_command
from idp.cli.bank.transfer import transfer_command
from idp.cli.bank.vector import app as vector_app

app = typer.Typer(
    name="bank",
    help="Banks of prompts: build, show, merge, import and export them, calculate with prompts.",
    no_args_is_help=True,
)
app.command("list")(list_command)
app.command("show")(show_command)
app.command("merge")(merge_command)
app.command("build")(build_command)
app.command("export")(export_command)
app.command("import")(import_command)
app.command("transfer")(transfer_command)
app.add_typer(vector_app)
