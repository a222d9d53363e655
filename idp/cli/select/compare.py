"""`idp select compare`: ways of choosing side by side, by regret and by cost."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idp.cli.errors import RESUMABLE, guarded
from idp.cli.eval import default_folder, default_suite
from idp.cli.options import (
    AllowMismatch,
    Bank,
    BatchSize,
    DataDir,
    Debug,
    Device,
    DType,
    FitItems,
    Limit,
    Model,
    Seed,
    check_names,
    rows_at_once,
    split_names,
)
from idp.cli.quiet import hush

if TYPE_CHECKING:
    from idp.evaluate.choosing import Comparison
    from idp.evaluate.regret import Regret
    from idp.stats.pairs import Paired
    from idp.stats.resampling import Interval

MOST = 3
"""Arms named for a task; the others are summed up."""


@guarded(interrupted=RESUMABLE)
def compare_command(
    model: Model = "reference",
    bank: Bank = None,
    selectors: Annotated[
        str | None,
        typer.Option("--selectors", "-s", callback=check_names, help="Comma-separated. Default: every family."),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", "-t", callback=check_names, help="Tasks or suites. Default: as for idp eval."),
    ] = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: DType = "auto",
    seed: Seed = 0,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "--output", "-o", help="Folder of what is measured. Default: as for idp eval."),
    ] = None,
    fit_items: FitItems = 400,
    allow_mismatch: AllowMismatch = False,
    choices: Annotated[
        bool, typer.Option("--choices/--no-choices", help="Print what was chosen, task by task.")
    ] = True,
    json: Annotated[
        Path | None, typer.Option("--json", help="Also write everything to this file; - prints it and nothing else.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Compare ways of choosing on the items of tasks: how far from the best choice, and at what cost.

    Every prompt is run on every item once; what a selector would have chosen is then looked up. Mixtures are run too.
    """
    hush(debug)
    from idp.model.aliases import resolve

    spec = resolve(model)
    name = spec.name
    from idp.cli.progress import progress

    with progress(debug) as observer:
        observer.stage("starting", None)
        from idp.evaluate.choosing import SELECTORS, compare_selectors
        from idp.evaluate.settings import Settings

        settings = Settings(
            model=model,
            dense="none",
            bank=bank,
            tasks=split_names(tasks) if tasks else (default_suite(spec),),
            data_dir=data_dir,
            arms=("compressed",),
            limit=limit,
            batch_size=rows_at_once(batch_size),
            device=device,
            dtype=dtype,
            seed=seed,
            output_dir=output_dir or default_folder(name),
            fit_items=fit_items,
            allow_mismatch=allow_mismatch,
        )
        found = compare_selectors(settings, split_names(selectors) if selectors else SELECTORS, observer)
    _tell(found, json, choices)


def _tell(found: Comparison, json: Path | None, choices: bool) -> None:
    """Write the file first, since nobody may be reading the table."""
    from idp.files import atomic_write_text, json_text

    text = json_text(found.to_dict())
    if json == Path("-"):
        typer.echo(text, nl=False)
        return
    if json:
        atomic_write_text(json, text)
    _print(found, choices)
    if json:
        typer.echo(f"\nResults: {json}")


def _print(found: Comparison, choices: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    from idp.cli.tables import column_groups
    from idp.select.registry import DEFAULTS

    console = Console()
    items = sum(found.items.values())
    console.print(Text(f"{found.model}, bank {found.bank}, {items:,} items of {len(found.items)} tasks\n"))
    names = [short(row.name) for row in found.rows]
    headers = ["selector", "mean", "+ points", "p", "loss", "regret", "covered [95 %]", "best", "passes", "ms", "alone"]
    rows = [[name, *_cells(row)] for name, row in zip(names, found.rows, strict=True)]
    for table in column_groups(headers, rows, console, main=DEFAULTS[0], gap=2):
        console.print(table, "")
    if choices:
        console.print(Text("What was chosen, percent of a task's items", style="bold"))
        kept = [(name, row) for name, row in zip(names, found.rows, strict=True) if row.histogram]
        rows = [[name, *(_most(row.histogram[task]) for task in found.items)] for name, row in kept]
        for table in column_groups(["selector", *found.items], rows, console, gap=2):
            console.print(table, "")
    for line in LEGEND:
        console.print(Text(f"- {line}", style="dim"))


LEGEND = (
    "mean: judged metric over accuracy-type tasks; + points: less that of static, p of no difference.",
    "loss: probability of being wrong, mean over all tasks; regret: loss less that of the best arm of each item.",
    "covered: share of the distance from static to that best; best: items for which no arm had a lower loss.",
    "passes: of the model to choose for one input, and of an ensemble all but the first.",
    "ms: to choose for one of many inputs, alone: for one by itself; mixtures choose none of the arms.",
)


def short(name: str) -> str:
    """A selector's name with the folders of its options cut to their ends.

    Example:
        >>> short("embedding:model=/some/where/model,by=examples")
        'embedding:model=…/model,by=examples'
    """
    return re.sub(r"(?<==)(?:[^,\[\]/]*/){2,}(?=[^,\[\]/])", "…/", name)


def _cells(row: Regret) -> list[str]:
    gain, p = _gain(row.gain)
    return [
        "" if row.mean is None else f"{100 * row.mean:.2f}",
        gain,
        p,
        f"{row.loss:.4f}",
        f"{row.regret.value:.4f}",
        _share(row.covered),
        "-" if row.agreement is None else f"{100 * row.agreement:.0f} %",
        f"{row.cost.forwards:.3g}",
        f"{1000 * row.seconds:.2f}",
        f"{1000 * row.alone:.2f}",
    ]


def _gain(found: Paired | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    return f"{100 * found.difference.value:+.2f}", "<0.001" if found.p < 0.001 else f"{found.p:.3f}"


def _share(covered: Interval) -> str:
    if not math.isfinite(covered.value):
        return ""
    value, low, high = (round(100 * part) for part in (covered.value, covered.low, covered.high))  # whole: never -0
    return f"{value} % [{low}, {high}]"


def _most(shares: Any) -> str:
    """The arms chosen most often, in percent.

    Example:
        >>> _most({"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05})
        'a 50, b 30, c 15, other 5'
    """
    named = [f"{arm} {100 * share:.0f}" for arm, share in list(shares.items())[:MOST]]
    rest = sum(list(shares.values())[MOST:])
    return ", ".join([*named, f"other {100 * rest:.0f}"] if rest else named)
