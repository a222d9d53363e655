"""`idp probe`: whether what prompts give back was displaced by compression, or lost."""

from __future__ import annotations

import json as jsonlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idp.cli.errors import guarded
from idp.cli.options import Debug, Device, DType, Json, Seed, check_names, split_names
from idp.cli.quiet import hush

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from idp.bank.bank import PromptBank
    from idp.evaluate.probe.result import Probed
    from idp.model.loaded import LanguageModel
    from idp.observer import Observer


@guarded()
def probe_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A compressed reference model.")] = "reference",
    bank: Annotated[str | None, typer.Option("--bank", help="Folder of a bank. Default: the model's own.")] = None,
    arms: Annotated[
        str | None,
        typer.Option("--arms", "-a", callback=check_names, help="Ways to choose. Default: static,router,router-state."),
    ] = None,
    facts: Annotated[int, typer.Option(min=1, help="Most facts of each set.")] = 700,
    lora: Annotated[bool, typer.Option("--lora/--no-lora", help="Compare with LoRA, some minutes on a CPU.")] = False,
    lora_steps: Annotated[int, typer.Option(min=1, help="Steps of LoRA.")] = 400,
    output: Annotated[
        Path | None,
        typer.Option("--output", "--output-dir", "-o", help="Folder for probe.json, probe.md and probe.png."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Tell displaced knowledge from lost knowledge: facts that prompts were tuned on, others, and facts never seen.

    What a repair has right again on facts that the model never saw is luck; what it has beyond that was still there.
    """
    hush(debug)
    from idp.cli.progress import progress

    with progress(debug) as observer:
        observer.stage("starting", None)
        if output:
            from idp.evaluate.probe.report import require_place

            require_place(output)
        from idp.evaluate.probe.measure import ARMS, probe

        dense, compressed, prompts, again = _loaded(model, bank, device, dtype, observer)
        found = probe(
            dense,
            compressed,
            prompts,
            arms=split_names(arms) if arms else ARMS,
            per_split=facts,
            lora=again if lora else None,
            lora_steps=lora_steps,
            seed=seed,
            observer=observer,
        )
    try:
        paths = _write(found, output) if output else []
    finally:  # what could not be written is seen at least
        _tell(found, json)
    if not json:
        for path in paths:
            typer.echo(f"Written: {path}")


def _loaded(
    model: str, bank: str | None, device: str, dtype: str, observer: Observer
) -> tuple[LanguageModel, LanguageModel, PromptBank, Callable[[], LanguageModel]]:
    """The dense and the compressed model, the bank, and what loads the compressed model again."""
    from idp.bank.bank import PromptBank
    from idp.errors import TaskError
    from idp.model.aliases import resolve
    from idp.model.load import load

    spec = resolve(model)
    if spec.dense is None or (bank is None and spec.bank is None):
        raise TaskError(f"{model} cannot be probed: it has no dense model or no bank; `idp probe reference` has both.")
    prompts = PromptBank.load(bank or str(spec.bank))
    observer.stage(f"loading {spec.name}", None)
    again = partial(load, spec, device=device, dtype=dtype, observer=observer)
    compressed = again()
    prompts.require(compressed.fingerprint)
    dense = load(spec.dense, device=device, dtype=compressed.dtype, observer=observer)
    return dense, compressed, prompts, again


def _write(found: Probed, output: Path) -> Sequence[Path]:
    from idp.evaluate.probe.report import write

    return write(found, output)


def _tell(found: Probed, json: bool) -> None:
    if json:
        typer.echo(jsonlib.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        _print(found)


def _print(found: Probed) -> None:
    from rich.console import Console
    from rich.text import Text

    from idp.cli.tables import column_groups
    from idp.evaluate.probe.report import accuracy_table, headline, inside_table, regain_table
    from idp.evaluate.probe.result import NULL

    console = Console()
    for title, table in (
        ("Right again, closed book", regain_table(found.regains)),
        ("Accuracy by set of facts", accuracy_table(found.sets, found.arms)),
        ("Accuracy by how often the training text told a fact", accuracy_table(found.frequencies, found.arms)),
        ("Inside the model, in percent", inside_table(found.inside)),
    ):
        if not table.rows:
            continue
        console.print(Text(title, style="bold"))
        for part in column_groups([*table.headers], [[*row] for row in table.rows], console, gap=2):
            console.print(part, "")
    for line in [*headline(found), NULL, *found.notes]:
        console.print(Text(f"- {line}"), soft_wrap=True)
