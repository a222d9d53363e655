"""`idp bank export`: the prompts of a bank in a form that other programs read, or compiled for a model."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idp.cli.bank.common import open_model
from idp.cli.errors import guarded
from idp.cli.options import AllowMismatch, Debug, Device, DType, Json
from idp.cli.quiet import hush
from idp.errors import BankError

if TYPE_CHECKING:
    from idp.bank.bank import PromptBank
    from idp.bank.prompt import Prompt
    from idp.model.loaded import LanguageModel
    from idp.observer import Observer


class Format(str, Enum):
    """What prompts are written as."""

    PEFT = "peft"
    P_TUNING = "p-tuning"
    YAML = "yaml"
    PREFIXES = "prefixes"


_PEFT_TYPES = {Format.PEFT: "PROMPT_TUNING", Format.P_TUNING: "P_TUNING"}


@guarded()
def export_command(
    bank: Annotated[
        str, typer.Argument(metavar="BANK", help="Folder of a bank, a YAML file, or the name of one that comes along.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; for yaml a file.")],
    form: Annotated[
        Format,
        typer.Option(
            "--format", "-f", help="PEFT prompt tuning or P-tuning adapters, YAML of text, or compiled prefixes."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="The model the prompts are for: prefixes need it, and text needs it to become an adapter.",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="Only this prompt; may be given several times.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there; prefixes are compiled again.")
    ] = False,
    device: Device = "auto",
    dtype: DType = "auto",
    allow_mismatch: AllowMismatch = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the prompts of a bank as PEFT adapters, as YAML, or compiled for a model.

    Prints each prompt and where it went.
    """
    hush(debug)
    _check_model(form, model)
    from idp.cli.progress import progress

    with progress(debug) as observer:
        if form is not Format.PREFIXES:
            _require_free(out, overwrite)
        opened, prompts = _chosen(bank, prompt or [])
        if form in _PEFT_TYPES:
            _require_peft()
        lm = None if model is None else _fitting_model(observer, model, device, dtype, opened, allow_mismatch)
        kept = _of_format(form, prompts, lm, bool(prompt), observer)
        paths = _write(form, kept, lm, out, overwrite, observer)
    rows = [{"prompt": each.name, "path": str(path)} for each, path in zip(kept, paths, strict=True)]
    typer.echo(jsonlib.dumps(rows, indent=2, ensure_ascii=False) if json else _lines(rows))


def _lines(rows: list[dict[str, str]]) -> str:
    return "\n".join(f"{row['prompt']}: {row['path']}" for row in rows)


def _check_model(form: Format, model: str | None) -> None:
    if form is Format.PREFIXES and model is None:
        raise typer.BadParameter("prefixes are keys and values of one model: name it.", param_hint="--model")
    if form is Format.YAML and model is not None:
        raise typer.BadParameter("text in YAML fits any model; leave it out.", param_hint="--model")


def _require_free(out: Path, overwrite: bool) -> None:
    """Find out now, and not after the model was loaded."""
    from idp.files import require_free

    require_free(out, overwrite=overwrite)


def _require_peft() -> None:
    from idp.bank.peft import require_peft

    require_peft()


def _chosen(bank: str, names: Sequence[str]) -> tuple[PromptBank, list[Prompt]]:
    from idp.bank.bank import PromptBank

    opened = PromptBank.load(bank)
    return opened, [opened[name] for name in dict.fromkeys(names)] if names else list(opened)


def _fitting_model(
    observer: Observer, model: str, device: str, dtype: str, bank: PromptBank, allow_mismatch: bool
) -> LanguageModel:
    lm = open_model(observer, model, device, dtype)
    bank.require(lm.fingerprint, allow_mismatch=allow_mismatch)
    return lm


def _of_format(
    form: Format, prompts: list[Prompt], lm: LanguageModel | None, named: bool, observer: Observer
) -> list[Prompt]:
    """The prompts as the format can hold them."""
    if form is Format.PREFIXES:
        return prompts
    if form is Format.YAML:
        return _of_kind("text", prompts, named, observer, "soft prompts have no text to write")
    if lm is not None:
        from idp.model.soft import as_soft

        return [as_soft(lm, prompt) for prompt in prompts]
    return _of_kind("soft", prompts, named, observer, "text becomes an adapter of vectors only with --model")


def _of_kind(kind: str, prompts: list[Prompt], named: bool, observer: Observer, why: str) -> list[Prompt]:
    """The prompts of one kind; the others are left out aloud, unless they were asked for or are all there is.

    Raises:
        BankError: they were, or are.
    """
    kept = [prompt for prompt in prompts if prompt.kind == kind]
    if left := [prompt.name for prompt in prompts if prompt.kind != kind]:
        message = f"{', '.join(left)}: {why}."
        if named or not kept:
            raise BankError(message)
        observer.note(f"left out {message}")
    return kept


def _write(
    form: Format, prompts: list[Prompt], lm: LanguageModel | None, out: Path, overwrite: bool, observer: Observer
) -> list[Path]:
    if form is Format.YAML:
        from idp.bank.text import save_text_prompts

        return [save_text_prompts(prompts, out, overwrite=overwrite)] * len(prompts)
    if lm is not None and form is Format.PREFIXES:
        from idp.run.prefix_export import save_prefixes

        observer.stage("compiling", len(prompts))
        return save_prefixes(lm, prompts, out, overwrite=overwrite, done=lambda: observer.advance(1))
    from idp.bank.peft import save_peft_bank

    base = None if lm is None else lm.model.name_or_path
    return save_peft_bank(prompts, out, peft_type=_PEFT_TYPES[form], base_model=base, overwrite=overwrite)
