"""`idp model damage`: what compression did to a model."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idp.cli.errors import guarded
from idp.cli.options import AllowPickle, Debug, Device, DType, Json, Seed, TrustRemoteCode
from idp.cli.quiet import hush

if TYPE_CHECKING:
    from rich.console import Console

    from idp.evaluate.damage.result import Damage
    from idp.model.aliases import ModelSpec
    from idp.model.loaded import LanguageModel
    from idp.observer import Observer

DenseModel = Annotated[str, typer.Argument(metavar="DENSE", help="The model before compression.", show_default=False)]
Compressed = Annotated[
    str, typer.Argument(metavar="COMPRESSED", help="What compression made of it.", show_default=False)
]
Text = Annotated[
    str | None,
    typer.Option(
        "--text", help="File, folder or data set that both read. Default: the reference world, for models that know it."
    ),
]
Rows = Annotated[int, typer.Option("--rows", min=1, help="Rows of text.")]
RowTokens = Annotated[
    int | None, typer.Option("--row-tokens", min=2, help="Tokens of a row. Default: 256, or the models' context.")
]
Questions = Annotated[
    Path | None,
    typer.Option(
        "--questions", help="JSON lines with answers, and kinds to tell them apart by. Default: the reference world."
    ),
]
Own = Annotated[
    bool, typer.Option("--own/--no-own", help="Also run each compressed block alone, on the dense model's input.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "--output-dir", "-o", help="Folder for damage.json, damage.md and damage.png."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace these files where they are.")]


@guarded()
def damage_command(
    dense: DenseModel,
    compressed: Compressed,
    text: Text = None,
    rows: Rows = 32,
    row_tokens: RowTokens = None,
    questions: Questions = None,
    own: Own = True,
    output: Output = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    allow_pickle: AllowPickle = False,
    trust_remote_code: TrustRemoteCode = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure what compression did to a model: weights and activations by layer, predictions, knowledge.

    Both models are in memory at once.
    """
    hush(debug)
    from idp.cli.progress import progress

    with progress(debug) as observer:
        observer.stage("starting", None)
        from idp.evaluate.damage.material import material
        from idp.evaluate.damage.measure import damage
        from idp.evaluate.damage.report import write
        from idp.model.aliases import resolve
        from idp.model.load import load_tokenizer

        _check_output(output, overwrite)
        switches = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
        before, after = (resolve(name, **switches) for name in (dense, compressed))
        given = material(load_tokenizer(before, observer), text, questions)
        pair = _load(before, after, device, dtype, observer)
        found = damage(*pair, given, rows=rows, row_tokens=row_tokens, own=own, seed=seed, observer=observer)
        paths = write(found, output, overwrite=overwrite) if output else []
    if json:
        typer.echo(jsonlib.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        _print(found, paths)


def _check_output(output: Path | None, overwrite: bool) -> None:
    """Find out early whether there will be a place for the files, and something to draw with."""
    from idp.evaluate.damage.report import require_place
    from idp.pictures import require_matplotlib

    if output is not None:
        require_place(output, overwrite=overwrite)
        require_matplotlib()


def _load(
    dense: ModelSpec, compressed: ModelSpec, device: str, dtype: str, observer: Observer
) -> tuple[LanguageModel, LanguageModel]:
    """Load both; the dense model takes the compressed one's type, so that the type is no part of the damage."""
    from idp.model.load import load

    observer.stage(f"loading {compressed.name}", None)
    theirs = load(compressed, device=device, dtype=dtype, observer=observer)
    observer.stage(f"loading {dense.name}", None)
    return load(dense, device=device, dtype=theirs.dtype, observer=observer), theirs


def _print(found: Damage, paths: Sequence[Path]) -> None:
    from rich.console import Console
    from rich.text import Text as Words

    from idp.cli.tables import column_groups
    from idp.evaluate.damage.report import footnotes, knowledge_table, layer_table, prediction_lines

    console = Console()
    console.print(Words(f"{found.compressed} against {found.dense}, {found.dtype}", style="bold"))
    for name, value in prediction_lines(found):
        console.print(Words.assemble((f"{name}: ", "bold"), value), soft_wrap=True)
    console.print()
    _print_tables(console, column_groups(*layer_table(found), console, main="all", gap=2))
    if found.knowledge:
        _print_knowledge(console, *knowledge_table(found))
    for line in footnotes(found):
        console.print(Words(f"- {line}", style="dim"), soft_wrap=True)
    for path in paths:
        typer.echo(f"Written: {path}")


def _print_tables(console: Console, tables: Sequence[object]) -> None:
    for table in tables:
        console.print(table, "")


def _print_knowledge(console: Console, headers: list[str], rows: list[list[str]]) -> None:
    from idp.cli.tables import grid

    console.print(grid(headers, rows), "")
