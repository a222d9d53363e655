"""What an evaluation with all arms takes: seconds of `idp eval`, and passes for each pair of prompt and item.

`idp eval` is timed in a process of its own, from its start to the report, on a machine that does nothing else. Passes
are counted in a second evaluation: rows that go through a decoder layer, over the number of layers. A pass that reads a
context is told from one that writes a token.

    python scripts/bench_eval.py --model reference --json runs/bench/eval.json
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from benchmarking import JsonFile
from rich.console import Console
from rich.table import Table
from torch.nn.modules.module import register_module_forward_hook

from idp.cli.errors import guarded
from idp.cli.quiet import hush
from idp.evaluate import Evaluation, Settings, evaluate
from idp.evaluate.arms import each_once
from idp.files import atomic_write_text, json_text

LAYERS = "DecoderLayer"
"""How the names of such layers end in transformers."""


@dataclass(frozen=True)
class Cost:
    """What an evaluation took.

    Attributes:
        model: the compressed model.
        arms: how many rows the table has.
        pairs: distinct pairs of an item and a prompt, no prompt, or the dense model.
        read: passes over more than one position.
        written: passes over a single one.
        ratio: passes that read, a pair.
        seconds: of `idp eval` in a process of its own; None where it was not timed.
    """

    model: str
    arms: int
    pairs: int
    read: float
    written: float
    ratio: float
    seconds: float | None = None


def cost(settings: Settings) -> Cost:
    """Evaluate, and count what went through the models."""
    with counted() as passes:
        evaluation = evaluate(settings)
    pairs = pairs_of(evaluation)
    read, written = passes["read"], passes["written"]
    return Cost(settings.model, len(evaluation.arms), pairs, read, written, read / pairs)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count passes, read and written, of all models that are run within."""
    passes: Counter[str] = Counter()

    def count(module: Any, args: Any, output: Any) -> None:
        if type(module).__name__.endswith(LAYERS):
            rows, positions, _ = args[0].shape
            kind = "written" if positions == 1 else "read"
            passes[kind] += rows / module.self_attn.config.num_hidden_layers

    hook = register_module_forward_hook(count)
    try:
        yield passes
    finally:
        hook.remove()


def pairs_of(evaluation: Evaluation) -> int:
    """Items times what each may stand behind: every prompt, none, and the dense model where it was run."""
    first = next(iter(evaluation.arms.values()))
    items = sum(len(each_once(rows)) for rows in first.samples.values())
    return items * (len(evaluation.bank["prompts"]) + 1 + ("dense" in evaluation.arms))  # type: ignore[arg-type]


def timed(model: str, folder: Path) -> float:
    """Seconds of `idp eval` as a user starts it."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "idp", "eval", "--model", model, "--output-dir", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


@guarded()
def main(
    model: Annotated[str, typer.Option(help="The compressed model.")] = "reference",
    limit: Annotated[int | None, typer.Option(min=1, help="Items a task, not timed then.")] = None,
    json: JsonFile = None,
) -> None:
    """Measure one evaluation with all arms."""
    hush(False)
    with TemporaryDirectory() as folder:
        seconds = timed(model, Path(folder) / "timed") if limit is None else None
        found = replace(cost(Settings(model, limit=limit, output_dir=Path(folder) / "counted")), seconds=seconds)
    table = Table("figure", "value", title=f"Evaluating {model}")
    for name, value in asdict(found).items():
        table.add_row(name, f"{value:,.2f}" if isinstance(value, float) else str(value))
    Console().print(table)
    if json:
        atomic_write_text(json, json_text(asdict(found)))


if __name__ == "__main__":
    typer.run(main)
