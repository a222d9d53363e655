"""`idp eval`: what compression cost, and what each way of choosing a prompt gives back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idp.cli.errors import RESUMABLE, guarded
from idp.cli.options import (
    DEFAULT_MODEL,
    AllowMismatch,
    AllowPickle,
    Bank,
    BatchSize,
    DataDir,
    Debug,
    Device,
    DType,
    FitItems,
    Json,
    Limit,
    Model,
    Seed,
    Suite,
    TrustRemoteCode,
    check_names,
    rows_at_once,
    split_names,
)
from idp.cli.quiet import hush
from idp.errors import OutputError
from idp.files import file_name
from idp.launch import rank

if TYPE_CHECKING:
    from idp.evaluate.evaluation import Evaluation
    from idp.model.spec import ModelSpec


_WITH_RESUME = ("output_dir", "allow_pickle", "trust_remote_code", "resume", "json", "debug")
"""What may stand beside --resume: all else is as the run was begun. Without a folder, --model says which."""


@guarded(interrupted=RESUMABLE)
def eval_command(
    context: typer.Context,
    model: Model = DEFAULT_MODEL,
    dense: Annotated[
        str | None,
        typer.Option("--dense", help="The uncompressed model; by default the alias's. 'none' goes without."),
    ] = None,
    dense_bank: Annotated[
        str | None,
        typer.Option("--dense-bank", help="Prompts tuned for the dense model in the same way; by default its alias's."),
    ] = None,
    bank: Bank = None,
    suite: Suite = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            "--tasks",
            "-t",
            callback=check_names,
            help="Tasks or suites, separated by commas. Default: what the alias names (mini: fewer arms and items), "
            "else paper.",
        ),
    ] = None,
    data_dir: DataDir = None,
    arms: Annotated[
        str | None,
        typer.Option("--arms", "-a", callback=check_names, help="Rows of the table. Default: all (idp list arms)."),
    ] = None,
    limit: Limit = None,
    text_limit: Annotated[
        int | None,
        typer.Option(min=1, help="Texts of a task of running text, such as wikitext's articles. Default: all."),
    ] = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: DType = "auto",
    seed: Seed = 0,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "--output", "-o", help="Folder of the results. Default: idp-results/MODEL."),
    ] = None,
    no_fit: Annotated[
        bool, typer.Option("--no-fit", help="Learn nothing from answers: arms that have to are left out.")
    ] = False,
    fit_items: FitItems = 400,
    allow_mismatch: AllowMismatch = False,
    allow_pickle: AllowPickle = False,
    trust_remote_code: TrustRemoteCode = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the answers of earlier runs.")] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run that --output-dir holds; its options are taken, not yours."),
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Evaluate a compressed model, bare and with prompts chosen in several ways.

    Prints one row per arm: accuracy, share of the compression loss recovered, cost.

    Interrupt it when you like: the same command goes on where it stopped.

    Several devices share the work under `accelerate launch -m idp eval ...`.
    """
    hush(debug)
    if resume:
        _refuse_others(context)
    from idp.model.aliases import resolve

    spec = resolve(model)  # first of all: it is quick, and a wrong name should not cost the wait for torch
    name = spec.name
    written = _Written()
    evaluation = _evaluate(
        debug,
        written,
        model=model,
        dense=dense,
        dense_bank=dense_bank,
        bank=bank,
        asked=split_names(suite) if suite else (),
        tasks=split_names(tasks) if tasks else (),
        usual=None if tasks or suite else default_suite(spec),
        data_dir=data_dir,
        arms=split_names(arms) if arms else None,
        limit=limit,
        text_limit=text_limit,
        batch_size=rows_at_once(batch_size),
        device=device,
        dtype=dtype,
        seed=seed,
        output_dir=output_dir or default_folder(name),
        fit=not no_fit,
        fit_items=fit_items,
        allow_mismatch=allow_mismatch,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
        fresh=fresh,
        resume=resume,
    )
    if rank() == 0:  # of several processes that share an evaluation, one tells
        if json:
            typer.echo(written.paths["results"].read_text(encoding="utf-8"), nl=False)
        else:
            _print_report(evaluation, written)
    if evaluation.failed:  # what did not is told all the same
        raise typer.Exit(1)


def _refuse_others(context: typer.Context) -> None:
    """Refuse options that a run which is gone on with could not take."""
    allowed = _WITH_RESUME if context.params["output_dir"] else (*_WITH_RESUME, "model")
    for name in context.params:
        given = context.get_parameter_source(name)
        if name not in allowed and given is not None and given.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(
                f"{option} cannot be changed: the run goes on as it was begun.", param_hint="--resume"
            )


def default_suite(spec: ModelSpec) -> str:
    """The suite that an alias names, the paper's nine tasks for all other models."""
    return spec.suite or "paper"


def default_folder(model: str) -> Path:
    """Where results go unless told.

    Example:
        >>> default_folder("org/model-4bit").as_posix()
        'idp-results/org-model-4bit'
    """
    return Path("idp-results") / file_name(model)


class _Written:
    """The results on disk, or why they are not there: tables are seen in either case."""

    def __init__(self) -> None:
        self._paths: dict[str, Path] = {}
        self._error: OutputError | None = None

    def __call__(self, evaluation: Evaluation) -> None:
        from idp.evaluate.report import write_report

        try:
            self._paths = write_report(evaluation)
        except OutputError as error:
            self._error = error

    @property
    def paths(self) -> dict[str, Path]:
        """Where they are.

        Raises:
            OutputError: they could not be written.
        """
        if self._error is not None:
            raise self._error
        return self._paths


def _evaluate(
    debug: bool,
    written: _Written,
    *,
    asked: tuple[str, ...],
    tasks: tuple[str, ...],
    usual: str | None,
    arms: tuple[str, ...] | None,
    limit: int | None,
    resume: bool,
    output_dir: Path,
    **options: Any,
) -> Evaluation:
    """Evaluate with progress on stderr; importing what it takes is the first stage."""
    from idp.cli.progress import progress

    with progress(debug) as observer:
        observer.stage("starting", None)
        from idp.evaluate import Settings, evaluate
        from idp.evaluate.arms import ARMS
        from idp.evaluate.tasks import suite_tasks, suites

        if resume:
            allowed = {name: options[name] for name in ("allow_pickle", "trust_remote_code")}
            return evaluate(Settings.begun(output_dir, **allowed), observer, written)
        named = (*suite_tasks(asked), *tasks) if usual is None else (usual,)
        bounds = suites()["suites"][usual] if usual else {}  # a suite may bound what is run where nothing is asked for
        arms, limit = arms or bounds.get("arms") or ARMS, limit or bounds.get("limit")
        settings = Settings(tasks=named, arms=tuple(arms), limit=limit, output_dir=output_dir, **options)
        return evaluate(settings, observer, written)


def _print_report(evaluation: Evaluation, written: _Written) -> None:
    """The tables, and where the files are that were written before, since nobody may be reading (`| head`)."""
    from rich.console import Console

    from idp.cli.tables import print_evaluation

    print_evaluation(evaluation, Console())
    typer.echo(f"\nResults: {written.paths['results']}")
    typer.echo(f"Report:  {written.paths['report']}")
    typer.echo(f"Samples: {written.paths['samples'] / 'samples_*.jsonl'}")
