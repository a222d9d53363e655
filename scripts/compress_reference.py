"""Compress the dense reference model with llm-compressor, one variant a recipe in `idp/reference/recipes`.

python scripts/compress_reference.py
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from idp.errors import MissingExtraError
from idp.files import sha256_of
from idp.model.load import load
from idp.reference.corpus import epoch_documents
from idp.reference.world import build_world

REFERENCE = Path(__file__).parent.parent / "idp" / "reference"
CALIBRATION_EPOCH = 10_000  # worded as no epoch of the training was
LENGTH = 256


def calibration_rows(tokenizer: Any, rows: int, seed: int) -> Any:
    """Training text in an unused wording, cut into rows of 256 tokens, as a data set."""
    from datasets import Dataset

    documents = epoch_documents(build_world(seed), CALIBRATION_EPOCH, seed)
    stream = [token for ids in tokenizer(documents).input_ids for token in [*ids, tokenizer.eos_token_id]]
    cut = [stream[start : start + LENGTH] for start in range(0, rows * LENGTH, LENGTH)]
    return Dataset.from_dict({"input_ids": cut, "attention_mask": [[1] * LENGTH] * len(cut)})


def compress(dense: Path, recipe: Path, out: Path, rows: int, seed: int) -> None:
    """Run one recipe and save the result in half precision; an older variant is replaced at the end."""
    try:
        from llmcompressor import oneshot
    except ImportError as error:
        raise MissingExtraError("compressing needs llm-compressor: pip install 'idp[compress]'") from error
    lm = load(str(dense), device="cpu", dtype="float32")
    torch.manual_seed(seed)  # llm-compressor draws from the global generator
    data = calibration_rows(lm.tokenizer, rows, seed)
    oneshot(model=lm.model, dataset=data, recipe=str(recipe), max_seq_length=LENGTH, num_calibration_samples=rows)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        part = Path(folder) / out.name
        lm.model.half().save_pretrained(part, save_compressed=True)
        lm.tokenizer.save_pretrained(part)
        shutil.copy(recipe, part / "recipe.yaml")
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)


def main(
    recipes: Annotated[list[Path] | None, typer.Argument(help="Recipes; all shipped ones if none is given.")] = None,
    dense: Annotated[Path, typer.Option(help="Folder of the dense model.")] = REFERENCE / "models" / "dense",
    out: Annotated[Path, typer.Option(help="Folder the variants go into.")] = REFERENCE / "models",
    rows: Annotated[int, typer.Option(help="Calibration rows of 256 tokens.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of calibration text and compressor.")] = 0,
) -> None:
    """Write one compressed variant a recipe."""
    for recipe in recipes or sorted((REFERENCE / "recipes").glob("*.yaml")):
        compress(dense, recipe, out / recipe.stem, rows, seed)
        size = sum(path.stat().st_size for path in (out / recipe.stem).iterdir())
        digest = sha256_of(out / recipe.stem / "model.safetensors")[:16]
        typer.echo(json.dumps({"variant": recipe.stem, "megabytes": round(size / 1e6, 2), "sha256": digest}))


if __name__ == "__main__":
    typer.run(main)
