"""The commands of `idp select`."""

from __future__ import annotations

import typer

from idp.cli.select.compare import compare_command
from idp.cli.select.explain import explain_command

app = typer.Typer(
    name="select",
    help="Ways of choosing a prompt: compare them by regret and cost, explain a choice.",
    no_args_is_help=True,
)
app.command("compare")(compare_command)
app.command("explain")(explain_command)
