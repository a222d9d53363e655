"""Compress the dense reference model with llm-compressor, one variant a recipe in `idp/reference/recipes`.

With `--items` it also tells what a recipe costs, on questions about tuning facts, which is how recipes are chosen.

    python scripts/compress_reference.py
    python scripts/compress_reference.py idp/reference/recipes/tried/*.yaml --out runs/tried --items 250
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer

from idp.compress.calibration import Calibration, calibration_text
from idp.compress.compress import save
from idp.compress.layers import linear_layers
from idp.compress.oneshot import carry_out
from idp.compress.recipe import find_recipe
from idp.files import atomic_folder, sha256_of
from idp.model.load import load
from idp.reference.world import build_world
from idp.run.score import Scored, score
from idp.run.store import PrefixStore
from idp.select.groups import group_means
from idp.tune.atlas import TASKS, atlas_examples
from idp.tune.examples import Example

REFERENCE = Path(__file__).parent.parent / "idp" / "reference"
LENGTH = 256


def compress(dense: Path, recipe: Path, out: Path, rows: int, seed: int) -> None:
    """Run one recipe and save the result in half precision; an older variant is replaced at the end."""
    lm = load(str(dense), device="cpu", dtype="float32")
    steps = find_recipe(str(recipe)).fill(linear_layers(lm), seed)
    text = calibration_text(lm, Calibration(rows=rows, row_tokens=LENGTH, held_out=0))
    carry_out(lm, steps, text.rows, seed=seed)
    with atomic_folder(out, overwrite=True) as folder:
        save(lm, folder, steps, torch.float16)
        shutil.copy(recipe, folder / "recipe.yaml")


def mean_accuracy(model: Path, items: int, seed: int) -> float:
    """Accuracy without a prompt on questions about tuning facts, the mean of all tasks but running text."""
    lm = load(str(model), device="cpu", dtype="float32")
    examples, _ = atlas_examples(lm, build_world(seed), items, seed, [task for task in TASKS if task != "text"])
    scored = score(
        PrefixStore(lm, None), [example.request for example in examples], [-1] * len(examples), batch_size=64
    )
    right = [is_right(*pair) for pair in zip(examples, scored, strict=True)]
    by_task = group_means(torch.tensor(right, dtype=torch.float64), [example.group for example in examples])
    return float(sum(by_task.values()) / len(by_task))


def is_right(example: Example, scored: Scored) -> bool:
    """Whether the right option is the likeliest; a single answer has to be what the model would say."""
    if len(scored.scores) == 1:
        return scored.scores[0].is_greedy
    likelihoods = [option.loglikelihood for option in scored.scores]
    return likelihoods.index(max(likelihoods)) == example.answer


def main(
    recipes: Annotated[list[Path] | None, typer.Argument(help="Recipes; all shipped ones if none is given.")] = None,
    dense: Annotated[Path, typer.Option(help="Folder of the dense model.")] = REFERENCE / "models" / "dense",
    out: Annotated[Path, typer.Option(help="Folder the variants go into.")] = REFERENCE / "models",
    rows: Annotated[int, typer.Option(help="Calibration rows of 256 tokens.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of calibration text and compressor.")] = 0,
    items: Annotated[
        int, typer.Option(help="Measure accuracy: tuning items a task, a quarter left out; 0 does not.")
    ] = 0,
) -> None:
    """Write one compressed variant a recipe."""
    if items:
        typer.echo(json.dumps({"variant": dense.name, "accuracy": round(mean_accuracy(dense, items, seed), 3)}))
    for recipe in recipes or sorted((REFERENCE / "recipes").glob("*.yaml")):
        compress(dense, recipe, out / recipe.stem, rows, seed)
        size = sum(path.stat().st_size for path in (out / recipe.stem).iterdir())
        digest = sha256_of(out / recipe.stem / "model.safetensors")[:16]
        made = {"variant": recipe.stem, "megabytes": round(size / 1e6, 2), "sha256": digest}
        accuracy = {"accuracy": round(mean_accuracy(out / recipe.stem, items, seed), 3)} if items else {}
        typer.echo(json.dumps(made | accuracy))


if __name__ == "__main__":
    typer.run(main)
