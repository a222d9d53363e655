"""`idp compress`: make a compressed model out of a dense one."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from idp.cli.errors import guarded
from idp.cli.options import AllowPickle, Debug, Json, Seed, TrustRemoteCode
from idp.cli.quiet import hush
from idp.files import file_name, public_name

if TYPE_CHECKING:
    from idp.compress.calibration import Calibration
    from idp.compress.report import Compressed
    from idp.model.spec import ModelSpec

DEFAULT_RECIPE = "gptq"


@guarded("interrupted; nothing was written")
def compress_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Dense model: alias, folder or hub id.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            help="Name, with options behind a colon (gptq:bits=3,group=64; see: idp list recipes), or a YAML file. "
            "Default: the alias's own, else gptq.",
        ),
    ] = None,
    calibration: Annotated[
        str, typer.Option(help="Text: file, folder or data set; reference is the text that comes along.")
    ] = "reference",
    output: Annotated[
        Path | None,
        typer.Option("--output", "--output-dir", "-o", help="Folder to make. Default: idp-models/<model>-<recipe>."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of calibration text.")] = 128,
    row_tokens: Annotated[
        int | None,
        typer.Option(min=2, help="Tokens a row. Default: 2,048 or the model's context, 256 of the reference text."),
    ] = None,
    held_out: Annotated[int, typer.Option(min=0, help="Rows of the same text to measure perplexity on.")] = 32,
    text_field: Annotated[str, typer.Option(help="Where JSON lines and data sets keep the text.")] = "text",
    text_split: Annotated[str, typer.Option(help="Split of a data set.")] = "train",
    seed: Seed = 0,
    allow_pickle: AllowPickle = False,
    trust_remote_code: TrustRemoteCode = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in the folder.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compress a dense model by a recipe of llm-compressor, and write a card that says what it cost.

    The folder appears when all is done, and is loaded first. Plain transformers loads it.
    """
    hush(debug)
    from idp.compress.calibration import Calibration

    text = Calibration(calibration, rows, row_tokens, held_out, text_field, text_split)
    job = find_job(model, recipe, output, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    made, folder = _compress(job, text, seed, overwrite, debug), job.output
    if json:
        typer.echo(jsonlib.dumps({"model": str(folder), **made.to_dict()}, indent=2, ensure_ascii=False))
    else:
        _print(folder, made)


def default_output(model: str, recipe: str) -> Path:
    """Where a model goes unless told.

    Example:
        >>> default_output("org/model", "gptq:bits=3").as_posix()
        'idp-models/org-model-gptq-bits-3'
    """
    return Path("idp-models") / f"{file_name(public_name(model))}-{file_name(public_name(recipe))}"


class Job(NamedTuple):
    """What is compressed, how, and to where."""

    dense: ModelSpec
    recipe: str
    output: Path


def find_job(model: str, recipe: str | None, output: Path | None, **switches: bool) -> Job:
    """Fill in what was not said: an alias may name a dense model, a recipe, and a folder where it is looked for."""
    from idp.model.aliases import resolve

    spec = resolve(model, **switches)
    if spec.recipe is None or spec.dense is None:
        chosen = recipe or DEFAULT_RECIPE
        return Job(spec, chosen, output or default_output(model, chosen))
    usual = Path(spec.source) if recipe in (None, spec.recipe) else default_output(model, str(recipe))
    return Job(resolve(spec.dense, **switches), recipe or spec.recipe, output or usual)


def _compress(job: Job, text: Calibration, seed: int, overwrite: bool, debug: bool) -> Compressed:
    """Compress with progress on stderr."""
    from idp.cli.progress import progress

    with progress(debug) as observer:
        observer.stage("starting", None)
        from idp.compress.compress import compress

        return compress(*job, calibration=text, seed=seed, overwrite=overwrite, observer=observer)


def _print(folder: Path, made: Compressed) -> None:
    """What it cost, and where it is."""
    from rich.console import Console

    from idp.cli.tables import grid

    rows = [
        ["dense", f"{made.perplexity_before:.3f}", f"{made.bytes_before / 1e6:,.2f}"],
        ["compressed", f"{made.perplexity_after:.3f}", f"{made.bytes_after / 1e6:,.2f}"],
    ]
    Console().print(grid(["model", "perplexity", "megabytes"], rows), "")
    text = made.calibration
    read = f"{text['source']}, {text['rows']} rows of {text['row_tokens']} tokens"
    typer.echo(f"Text:  {read}; perplexity on {text['perplexity_on']}")
    typer.echo(f"How:   {made.about} {made.kind}")
    typer.echo(f"Time:  {made.seconds:,.1f} s, {made.seconds_per_million:.2f} s per million parameters")
    typer.echo(f"Model: {folder} (card: {folder / 'README.md'})")
