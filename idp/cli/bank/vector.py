"""`idp bank vector`: differences of prompts, and calculating with them."""

from __future__ import annotations

import functools
import json as jsonlib
import operator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idp.cli.bank.options import Out, Overwrite, check_new
from idp.cli.errors import guarded
from idp.cli.options import Debug, Json
from idp.cli.quiet import hush

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from idp.bank.find import FoundPrompt
    from idp.bank.fingerprint import Fingerprint
    from idp.bank.prompt import Prompt
    from idp.bank.vectors import PromptVector

app = typer.Typer(
    name="vector",
    help="Calculate with prompts: a vector is a tuned prompt minus the prompt it was started from (arXiv 2408.01119).",
    epilog="A prompt or vector is written BANK:NAME, or BANK alone where the bank holds one.",
    no_args_is_help=True,
)

For = Annotated[
    str | None,
    typer.Option("--for", metavar="BANK", help="A bank of the model that the result is for, where the weights differ."),
]
Name = Annotated[str | None, typer.Option("--name", help="What the result is called. Default: as OUT's folder.")]
OneVector = Annotated[str, typer.Argument(metavar="V", help="A vector.", show_default=False)]
Vectors = Annotated[list[str], typer.Argument(metavar="V", help="Vectors.", show_default=False)]


@app.command("difference")
@guarded()
def difference_command(
    out: Out,
    a: Annotated[str, typer.Argument(metavar="A", help="A tuned prompt, or a vector.", show_default=False)],
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="What to take away. Default: what A was started from.")
    ] = None,
    for_bank: For = None,
    name: Name = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Take the vector between two prompts, A - B, or between two vectors."""
    hush(debug)
    check_new(out, overwrite)
    from idp.bank.find import find_prompt
    from idp.bank.inits import init_of
    from idp.bank.vectors import PromptVector, is_vector

    tuned = find_prompt(a)
    pair = [tuned, find_prompt(b) if b is not None else init_of(tuned)]
    model = _model(pair, for_bank)
    if all(is_vector(found.prompt) for found in pair):
        first, second = (_as_vector(found, model) for found in pair)
        vector = first - second
    else:
        vector = PromptVector.between(_addressed(pair[0]), _addressed(pair[1]), model)
    _save_vector(vector, out, name)


@app.command("sum")
@guarded()
def sum_command(
    out: Out,
    vectors: Vectors,
    for_bank: For = None,
    name: Name = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Add vectors."""
    hush(debug)
    check_new(out, overwrite)
    _save_vector(_total(_vectors(vectors, for_bank)), out, name)


@app.command("negate")
@guarded()
def negate_command(
    out: Out, vector: OneVector, name: Name = None, overwrite: Overwrite = False, debug: Debug = False
) -> None:
    """Turn a vector round."""
    hush(debug)
    check_new(out, overwrite)
    [made] = _vectors([vector])
    _save_vector(-made, out, name)


# A factor may begin with a minus, which would be read as an option; a mistyped option is then one argument too many.
@app.command("scale", context_settings={"ignore_unknown_options": True})
@guarded()
def scale_command(
    out: Out,
    vector: OneVector,
    factor: Annotated[float, typer.Argument(metavar="FACTOR", help="A number.", show_default=False)],
    name: Name = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Multiply a vector by a number."""
    hush(debug)
    check_new(out, overwrite)
    [made] = _vectors([vector])
    _save_vector(factor * made, out, name)


@app.command("apply")
@guarded()
def apply_command(
    out: Out,
    init: Annotated[str, typer.Argument(metavar="INIT", help="The prompt to put them on.", show_default=False)],
    vectors: Vectors,
    weight: Annotated[float, typer.Option("--weight", "-w", help="How much of the vectors' sum.")] = 1.0,
    for_bank: For = None,
    name: Name = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Put vectors on a prompt, INIT + weight * (V + ...): the result is a prompt again."""
    hush(debug)
    check_new(out, overwrite)
    start, *found = _found([init, *vectors])
    model = _model([start, *found], for_bank)
    vector = _total([_as_vector(each, model) for each in found])
    _save(vector.apply(_addressed(start), weight), model, out, name)


@app.command("similarity")
@guarded()
def similarity_command(
    vectors: Annotated[
        list[str], typer.Argument(metavar="V", help="Vectors; BANK alone is all of a bank.", show_default=False)
    ],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare vectors: the cosines of their means over tokens."""
    hush(debug)
    from idp.bank.find import find_prompts
    from idp.bank.vectors import similarities

    found = [each for address in vectors for each in find_prompts(address)]
    names = [each.address for each in found]
    compared = similarities([_as_vector(each, each.bank.fingerprint) for each in found])
    if json:
        typer.echo(jsonlib.dumps({"vectors": names, "similarity": compared.tolist()}, indent=2, ensure_ascii=False))
    else:
        _print_table(names, compared)


def _found(addresses: Sequence[str]) -> list[FoundPrompt]:
    from idp.bank.find import find_prompt

    return [find_prompt(address) for address in addresses]


def _addressed(found: FoundPrompt) -> Prompt:
    """The prompt, called by its address: names of several banks would be mistaken for each other."""
    return replace(found.prompt, name=found.address)


def _as_vector(found: FoundPrompt, model: Fingerprint | None) -> PromptVector:
    from idp.bank.vectors import PromptVector

    return PromptVector.from_prompt(_addressed(found), model)


def _vectors(addresses: Sequence[str], for_bank: str | None = None) -> list[PromptVector]:
    found = _found(addresses)
    model = _model(found, for_bank)
    return [_as_vector(each, model) for each in found]


def _total(vectors: Sequence[PromptVector]) -> PromptVector:
    return functools.reduce(operator.add, vectors)


def _model(found: Sequence[FoundPrompt], for_bank: str | None) -> Fingerprint | None:
    """The model of the result.

    Raises:
        BankError: the prompts cannot be combined, or it is not clear for which model.
    """
    from idp.bank.agreement import common_fingerprint
    from idp.bank.bank import PromptBank
    from idp.errors import BankError

    target = PromptBank.load(for_bank).fingerprint if for_bank is not None else None
    if for_bank is not None and target is None:
        raise BankError(f"bank {for_bank} fits any model, so it does not say which one the result is for (--for).")
    return common_fingerprint([(each.address, each.bank.fingerprint) for each in found], target)


def _save_vector(vector: PromptVector, out: Path, name: str | None) -> None:
    _save(vector.to_prompt(), vector.fingerprint, out, name)


def _save(prompt: Prompt, model: Fingerprint | None, out: Path, name: str | None) -> None:
    from idp.bank.bank import PromptBank
    from idp.bank.vectors import is_vector

    named = replace(prompt, name=name if name is not None else out.resolve().name)
    path = PromptBank([named], model, provenance={"source": "idp bank vector"}).save(out)
    typer.echo(f"{'Vector' if is_vector(named) else 'Prompt'} {named.name}: {path}")


def _print_table(names: list[str], compared: Tensor) -> None:
    """Columns go by number, since names are long."""
    from rich.console import Console

    from idp.cli.tables import column_groups

    numbered = [f"{number} {name}" for number, name in enumerate(names, start=1)]
    rows = [[name, *(f"{value:.3f}" for value in row)] for name, row in zip(numbered, compared.tolist(), strict=True)]
    console = Console()
    for part in column_groups(["vector", *(str(number + 1) for number in range(len(names)))], rows, console):
        console.print(part)
