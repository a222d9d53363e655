"""`idp bank transfer`: what a bank is worth on other models than its own."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idp.cli.errors import RESUMABLE, guarded
from idp.cli.options import BatchSize, Debug, Device, DType, Json, Limit, Seed, check_names, rows_at_once, split_names
from idp.cli.quiet import hush

if TYPE_CHECKING:
    from idp.evaluate.transfer import Transferred

BankName = Annotated[str, typer.Argument(metavar="BANK", help="The bank, made for one model.", show_default=False)]
Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="Models of the same width and tokenizer to try it on.", show_default=False),
]
Dense = Annotated[
    str | None,
    typer.Option("--dense", help="The uncompressed model of all; by default each alias's. 'none' goes without."),
]
Tasks = Annotated[str, typer.Option("--tasks", "-t", callback=check_names, help="Tasks or suites, comma-separated.")]
Arms = Annotated[
    str | None,
    typer.Option(
        "--arms", "-a", callback=check_names, help="Rows a model. Default: dense,compressed,static,router,router-state."
    ),
]
Output = Annotated[Path, typer.Option("--output-dir", "--output", "-o", help="Folder of the results.")]


@guarded(RESUMABLE)
def transfer_command(
    bank: BankName,
    models: Models,
    dense: Dense = None,
    tasks: Tasks = "atlas",
    arms: Arms = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: DType = "auto",
    seed: Seed = 0,
    output_dir: Output = Path("idp-results/transfer"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Try a bank on other compression levels and methods of its model, with the selectors of its own model."""
    hush(debug)
    from idp.cli.progress import progress

    with progress(debug) as observer:
        observer.stage("starting", None)
        from idp.evaluate.settings import Settings
        from idp.evaluate.transfer import ARMS, transfer, write_transfer

        settings = Settings(
            dense=dense,
            bank=bank,
            tasks=split_names(tasks),
            arms=split_names(arms) if arms else ARMS,
            limit=limit,
            batch_size=rows_at_once(batch_size),
            device=device,
            dtype=dtype,
            seed=seed,
            output_dir=output_dir,
        )
        rows = transfer(settings, models, observer)
        path = write_transfer(rows, output_dir)
    if json:
        typer.echo(jsonlib.dumps([row.to_dict() for row in rows], indent=2))
    else:
        _print(rows, path)


def _print(rows: Sequence[Transferred], path: Path) -> None:
    from rich.console import Console

    from idp.cli.tables import grid

    headers = ["model", "arm", "mean", "gain [95 %]", "p", "gap"]
    Console().print(grid(headers, [_cells(row) for row in rows], words=2), "")
    typer.echo("* the model that the bank was made for")
    typer.echo(f"Results: {path}")


def _cells(row: Transferred) -> list[str]:
    gain, p = "", ""
    if row.gain is not None:
        found = row.gain.difference
        gain = f"{100 * found.value:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
        p = "<0.001" if row.gain.p < 0.001 else f"{row.gain.p:.3f}"
    mean = "" if row.mean is None else f"{100 * row.mean:.2f}"
    gap = "" if row.gap is None else f"{100 * row.gap.value:.0f} %"
    return [row.model + (" *" if row.own else ""), row.arm, mean, gain, p, gap]
