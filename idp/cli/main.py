"""The program `idp`: its commands and what they share. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

import idp
from idp.cli.bank.app import app as bank_app
from idp.cli.compress import compress_command
from idp.cli.errors import INTERRUPTED, complain
from idp.cli.eval import eval_command
from idp.cli.generate import generate_command
from idp.cli.list import list_command
from idp.cli.model.app import app as model_app
from idp.cli.models import app as models_app
from idp.cli.options import Debug
from idp.cli.probe import probe_command
from idp.cli.report import report_command
from idp.cli.select.app import app as select_app

app = typer.Typer(
    name="idp",
    help="Repair compressed language models with dynamic prompts: one prompt per input, chosen from a bank.",
    epilog="Start with: idp eval. It fetches a small real model; --model names another, and reference an embedded one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # errors.py says what went wrong
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("compress")(compress_command)
app.command("eval")(eval_command)
app.command("generate")(generate_command)
app.command("list")(list_command)
app.command("probe")(probe_command)
app.command("report")(report_command)
app.add_typer(bank_app)
app.add_typer(model_app)
app.add_typer(models_app)
app.add_typer(select_app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"idp {idp.__version__}")
        raise typer.Exit


@app.callback()
def main(
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def run() -> None:
    """Run the program with the arguments of the process."""
    try:
        app()
    except KeyboardInterrupt:  # before or after a command, which deals with its own
        complain("interrupted")
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    run()
