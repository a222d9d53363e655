"""`idp select explain`: how every prompt scored for a text."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idp.cli.errors import guarded
from idp.cli.options import AllowMismatch, Bank, Debug, Device, DType, Json, Model, Seed, SelectorName
from idp.cli.quiet import hush

if TYPE_CHECKING:
    from idp.dynamic.model import DynamicPromptModel

NO_PROMPT = "no prompt"
MOST_ROWS = 40


@guarded()
def explain_command(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="Inputs to choose for; - reads stdin.")],
    model: Model = "reference",
    bank: Bank = None,
    selector: SelectorName = None,
    device: Device = "auto",
    dtype: DType = "auto",
    seed: Seed = 0,
    allow_mismatch: AllowMismatch = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show how a selector scores every prompt for a text, the best first."""
    hush(debug)
    from idp.cli.progress import progress
    from idp.cli.prompted import load_prompted, read_text

    inputs = [read_text(text) for text in texts]
    with progress(debug) as observer:
        prompted = load_prompted(observer, model, bank, selector, device, dtype, seed, allow_mismatch)
        observer.stage("choosing", None)
        rows = [explained(prompted, text) for text in inputs]
    if json:
        typer.echo(jsonlib.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _print(rows)


def explained(prompted: DynamicPromptModel, text: str) -> dict[str, Any]:
    """A choice with the scores of all arms, the best first, as JSON values."""
    from idp.cli.prompted import finite, named_scores

    ids = prompted.tokenizer(text)["input_ids"]
    choice = prompted.selector.select(ids)
    scores = sorted(named_scores(prompted, choice, NO_PROMPT), key=lambda pair: -pair[1])  # equal ones keep their order
    return {
        "text": text,
        "tokens": len(ids),
        "selector": prompted.selector.spec or prompted.selector.name,
        "chosen": NO_PROMPT if prompted.bank is None or choice.index == -1 else prompted.bank[choice.index].name,
        "scores": {name: finite(score) for name, score in scores},
    }


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.text import Text

    from idp.cli.tables import grid

    console = Console()
    for row in rows:
        console.print(Text(row["text"], style="dim"), soft_wrap=True)
        console.print(Text(f"└ {row['chosen']} · chosen by {row['selector']}", style="cyan"))
        cells = [[name, "never" if score is None else f"{score:.4g}"] for name, score in row["scores"].items()]
        console.print(grid(["prompt", "score"], cells[:MOST_ROWS], main=row["chosen"]), "")
