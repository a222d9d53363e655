"""`idp report`: evaluations as a page to read and share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idp.cli.errors import guarded
from idp.cli.options import Debug, Json
from idp.cli.quiet import hush


@guarded()
def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Output folders of idp eval.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "--output-dir", "-o", help="Folder to write to. Default: the run's own; several runs need one."
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Report evaluations: one HTML page that needs no network, and Markdown. Several are compared.

    With --json the headline and the table of arms are printed as well.
    """
    hush(debug)
    import json as jsonlib

    from idp.report.write import write_report

    if output is None and len(set(runs)) > 1:
        raise typer.BadParameter(
            "several runs are reported into a folder of their own: name one.", param_hint="--output"
        )
    folder = output or runs[0]
    if len(set(runs)) > 1 and folder.resolve() in {run.resolve() for run in runs}:
        raise typer.BadParameter(
            "a comparison would replace this run's own report: name another folder.", param_hint="--output"
        )
    report = write_report(runs, folder)
    page, text = folder / "report.html", folder / "report.md"
    if json:
        arms = [dict(zip(report.arms.headers, row, strict=True)) for row in report.arms.rows]
        told = {"headline": report.headline, "arms": arms, "html": str(page), "markdown": str(text)}
        typer.echo(jsonlib.dumps(told, indent=2, ensure_ascii=False))
        return
    for line in report.headline:
        typer.echo(line)
    typer.echo(f"\nReport: {page} ({page.stat().st_size / 1e6:.1f} MB)\nText:   {text}")
