"""What each way of compressing costs the reference model: size, perplexity, accuracy and seconds.

Every recipe gets the same calibration text. Accuracy is the mean over the embedded tasks without a prompt, on
evaluation facts: nothing is chosen by it. What is done is kept; the same command goes on where it stopped.

auto-round leaves matrices alone whose widths 32 does not divide, since kernels of its own formats could not run them.
The reference model is 432 wide within its blocks, so for a fair row that rule is set aside here.

    python scripts/study_compression.py --out runs/compression
    python scripts/study_compression.py gptq:bits=3 flexround:bits=3 --out runs/compression
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import typer

from idp.cli.progress import progress
from idp.cli.quiet import hush
from idp.compress.calibration import REFERENCE, Calibration
from idp.compress.compress import compress
from idp.evaluate.run import evaluate
from idp.evaluate.settings import Settings
from idp.files import atomic_write_text, file_name, json_text
from idp.observer import Observer

METHODS = ("rtn", "gptq", "awq", "autoround", "flexround")
QUANTISED = [f"{method}:bits={bits}" for bits in (4, 3, 2) for method in METHODS]
PRUNED = [
    f"{method}:{option}"
    for option in ("sparsity=0.5", "sparsity=0.6", "sparsity=0.7", "structure=2:4")
    for method in ("magnitude", "wanda", "sparsegpt")
]
JOINT = ["sparsegpt-gptq:bits=4", "wanda-flexround:bits=3"]


@contextmanager
def auto_round_everywhere() -> Iterator[None]:
    """Have auto-round round matrices of any width."""
    from auto_round.compressors import layer_config_resolver as resolver

    original = resolver.apply_layer_config_special_cases

    def apply(layer_config: dict[str, Any], model: Any, usual: dict[str, Any], *rest: Any) -> Any:
        asked = {name for name, settings in layer_config.items() if settings["bits"] == 16}
        found, *others = original(layer_config, model, usual, *rest)
        for name in {name for name, settings in found.items() if settings["bits"] == 16} - asked:
            found[name] = {**deepcopy(usual), "fixed_by_user": False, "in_blocks": True}
        return found, *others

    with mock.patch.object(resolver, "apply_layer_config_special_cases", apply):
        yield


def measure(
    model: str, recipe: str, out: Path, calibration: Calibration, seed: int, observer: Observer
) -> dict[str, Any]:
    """Compress, evaluate, and keep what was found; what is there already is read."""
    folder = out / file_name(recipe)
    kept = folder / "row.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    with auto_round_everywhere():
        made = compress(
            model, recipe, folder / "model", calibration=calibration, seed=seed, overwrite=True, observer=observer
        )
    row = {**made.to_dict(), "accuracy": accuracy(str(folder / "model"), folder, observer)}
    atomic_write_text(kept, json_text(row))
    return row


def accuracy(model: str, folder: Path, observer: Observer) -> float | None:
    """Mean accuracy in percent over the embedded tasks, without a prompt."""
    settings = Settings(model=model, dense="none", arms=("compressed",), output_dir=folder / "eval", dtype="float32")
    mean = evaluate(settings, observer).arms["compressed"].mean
    return None if mean is None else 100 * mean


def table(dense: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| recipe | megabytes | zeros | perplexity | accuracy | seconds |", "|---|---|---|---|---|---|"]
    for row in [dense, *rows]:
        left = f" ({len(row['unquantised'])} layers left out)" if row["unquantised"] else ""
        lines.append(
            f"| `{row['recipe']}`{left} | {row['bytes_after'] / 1e6:.2f} | {row['zeros']:.0%} "
            f"| {row['perplexity_after']:.3f} "
            f"| {row['accuracy']:.2f} | {row['seconds']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main(
    recipes: Annotated[list[str] | None, typer.Argument(help="Recipes; the whole table if none is given.")] = None,
    model: Annotated[str, typer.Option(help="Dense model.")] = "reference-dense",
    out: Annotated[Path, typer.Option(help="Folder for models, results and the table.")] = Path("runs/compression"),
    text: Annotated[str, typer.Option(help="Calibration text.")] = REFERENCE,
    rows: Annotated[int, typer.Option(help="Calibration rows.")] = 256,
    row_tokens: Annotated[int, typer.Option(help="Tokens a row.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Write the table."""
    hush(False)
    calibration = Calibration(text, rows, row_tokens, held_out=64)
    out.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    with progress() as observer:
        before = accuracy(model, out / "dense", observer)
        for recipe in recipes or [*QUANTISED, *PRUNED, *JOINT]:
            found.append(measure(model, recipe, out, calibration, seed, observer))
            first = found[0]
            dense = {
                "recipe": "none (dense)",
                "unquantised": (),
                "zeros": 0.0,
                "bytes_after": first["bytes_before"],
                "perplexity_after": first["perplexity_before"],
                "accuracy": before,
                "seconds": 0.0,
            }
            atomic_write_text(out / "table.md", table(dense, found))
    atomic_write_text(out / "table.json", json_text({"calibration": asdict(calibration), "rows": [dense, *found]}))
    typer.echo(table(dense, found))


if __name__ == "__main__":
    typer.run(main)
