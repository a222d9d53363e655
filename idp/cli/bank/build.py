"""`idp bank build`: tune the prompts of a bank and fit its selectors."""

from __future__ import annotations

import inspect
import json as jsonlib
from collections.abc import Callable
from dataclasses import Field, asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from idp.cli.errors import RESUMABLE, guarded
from idp.cli.options import Debug, Json
from idp.cli.quiet import hush
from idp.files import file_name
from idp.tune.config import PRESETS, BuildConfig, load_config

if TYPE_CHECKING:
    from idp.tune.built import Built

Config = Annotated[
    str | None,
    typer.Option("--config", help=f"YAML file of flags, or {', '.join(PRESETS)}; flags given beside it win."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "--output-dir", "-o", help="Folder of the run. Default: idp-banks/<model>."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the files of another run in the folder.")]


def with_config_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every field of `BuildConfig`; those that are given reach it as `flags`."""
    written = inspect.signature(command, eval_str=True).parameters.values()
    own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in written if each.name != "flags"]
    hints = get_type_hints(BuildConfig)
    added = [_parameter(each, hints[each.name]) for each in fields(BuildConfig)]

    def run(**arguments: Any) -> None:
        given = {each.name: arguments.pop(each.name) for each in fields(BuildConfig)}
        command(**arguments, flags={name: value for name, value in given.items() if value not in (None, [])})

    run.__signature__ = inspect.Signature([*added, *own])  # type: ignore[attr-defined]
    run.__doc__ = command.__doc__
    return run


def _parameter(each: Field[Any], kind: Any) -> inspect.Parameter:
    """A flag that is None where it was not given, so that a config file can be told from the default."""
    items = get_args(kind)
    default: Any = each.default
    shown = ", ".join(map(str, default)) if items else str(default)
    flag = f"--{each.name.replace('_', '-')}"
    names = [f"{flag}/--no-{flag[2:]}"] if kind is bool else [flag, "-m"] if each.name == "model" else [flag]
    option = typer.Option(*names, help=each.metadata["help"], show_default=shown or False)
    annotation = list[items[0]] | None if items else kind | None  # type: ignore[valid-type]
    return inspect.Parameter(
        each.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option]
    )


@with_config_flags
@guarded(RESUMABLE)
def build_command(
    flags: dict[str, Any],
    config: Config = None,
    output: Output = None,
    overwrite: Overwrite = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Build a bank for a compressed model: tune prompts, fit selectors, write a card.

    Without data of your own, a reference model is tuned on facts of its world. What is interrupted goes on when the
    same command is given again.
    """
    hush(debug)
    settings = (load_config(config) if config else BuildConfig()).changed(flags)
    folder = output or default_output(settings.model)
    built, seconds = _build(settings, folder, overwrite, debug)
    if json:
        typer.echo(jsonlib.dumps(_told(folder, built, seconds), indent=2))
    else:
        _print(folder, built, sum(seconds.values()))


def default_output(model: str) -> Path:
    """Where a run goes unless told.

    Example:
        >>> default_output("org/model-4bit").as_posix()
        'idp-banks/org-model-4bit'
    """
    return Path("idp-banks") / file_name(model)


def _build(config: BuildConfig, output: Path, overwrite: bool, debug: bool) -> tuple[Built, dict[str, float]]:
    """Build with progress on stderr; what each stage took is told too."""
    from idp.cli.progress import progress
    from idp.tune.stages import Stages

    with progress(debug) as told:
        observer = Stages(told)
        observer.stage("starting", None)
        from idp.evaluate.building import build_bank

        built = build_bank(config, output, observer, overwrite)
        observer.finish()
    return built, observer.seconds


def _told(folder: Path, built: Built, seconds: dict[str, float]) -> dict[str, Any]:
    """What `--json` prints."""
    from idp.tune.stages import peak_memory

    return {
        "bank": str(folder / "bank"),
        "prompts": len(built.bank),
        "held_out_loss": built.means(),
        "seconds": {name: round(took, 1) for name, took in seconds.items()},
        "peak_memory_bytes": peak_memory(),
        "updates": built.updates,
        "rounds": [asdict(each) for each in built.parts.rounds] if built.parts else [],
    }


def _print(folder: Path, built: Built, seconds: float) -> None:
    """The prompts and what they cost."""
    from rich.console import Console

    from idp.cli.progress import clock
    from idp.cli.tables import grid

    rows = [[name, f"{mean:.3f}"] for name, mean in built.means().items()]
    Console().print(grid(["held-out examples, prompt chosen by", "loss"], rows), "")
    typer.echo(f"Bank:   {folder / 'bank'} ({len(built.bank)} prompts, {clock(seconds)})")
    if built.curves:
        typer.echo(f"Curves: {folder / 'curves.csv'}")
