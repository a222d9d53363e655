"""What compressing takes: memory above the dense model, in blocks, and seconds per million parameters.

Every recipe runs in a process of its own, on a model of random weights in the proportions of LLaMA-7B. Memory is the
highest resident set while the recipe runs, less what the process held when the dense model and all libraries were
there. Linux only (`/proc`).

    python scripts/bench_compress.py
    python scripts/bench_compress.py gptq flexround-quick --width 2048 --rows 32 --json compress.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from benchmarking import environment, random_llama

from idp.compress.layers import linear_layers
from idp.compress.oneshot import carry_out
from idp.compress.recipe import find_recipe
from idp.files import atomic_write_text, json_text
from idp.model.load import load
from idp.model.view import decoder_layers

RECIPES = ("rtn", "gptq", "awq", "autoround", "flexround-quick:iterations=20", "magnitude", "wanda", "sparsegpt")
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def write_model(folder: Path, width: int, layers: int) -> None:
    """Write a model of random weights."""
    lm = random_llama("7b", device="cpu", dtype="float32", **proportions(width, layers))
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)


def proportions(width: int, layers: int) -> dict[str, int]:
    """LLaMA-7B made narrower and shallower; a small vocabulary, since blocks are what counts."""
    return {
        "hidden_size": width,
        "intermediate_size": width * 43 // 16,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 128,
        "vocab_size": 4000,
    }


def resident(field: str) -> int:
    """Bytes of `VmRSS`, what is resident now, or of `VmHWM`, the most there was since the mark was reset."""
    [line] = [line for line in _STATUS.read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


def measure(folder: Path, recipe: str, rows: int, row_tokens: int, threads: int) -> dict[str, Any]:
    """Compress the model in a folder, in this process."""
    torch.set_num_threads(threads)
    lm = load(folder / "large", "cpu", "float32")
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(3, lm.vocab_size, (rows, row_tokens), generator=generator).tolist()
    small = load(folder / "small", "cpu", "float32")
    carry_out(small, find_recipe(recipe).fill(linear_layers(small)), [row[:64] for row in text])  # imports, first calls
    steps = find_recipe(recipe).fill(linear_layers(lm))
    block = sum(weight.nbytes for weight in decoder_layers(lm)[0].parameters())
    parameters = sum(weight.numel() for weight in lm.model.parameters())
    lm.model(torch.tensor(text[:1]))  # weights are mapped from the file, and read when they are needed
    before = resident("VmRSS")
    _RESET.write_text("5")  # resets VmHWM
    begun = time.perf_counter()
    carry_out(lm, steps, text)
    seconds, peak = time.perf_counter() - begun, resident("VmHWM")
    hidden = rows * row_tokens * lm.hidden_size * 4
    return {
        "recipe": recipe,
        "above_dense_bytes": peak - before,
        "blocks": (peak - before) / block,
        "blocks_without_text": (peak - before - hidden) / block,
        "seconds": seconds,
        "seconds_per_million": seconds / (parameters / 1e6),
        "block_bytes": block,
        "text_bytes": hidden,
    }


def main(
    recipes: Annotated[list[str] | None, typer.Argument(help="Recipes; all methods if none is given.")] = None,
    width: Annotated[int, typer.Option(help="Width of the model; a block of LLaMA-7B is 4096 wide.")] = 1024,
    layers: Annotated[int, typer.Option(help="Blocks.")] = 6,
    rows: Annotated[int, typer.Option(help="Calibration rows.")] = 16,
    row_tokens: Annotated[int, typer.Option(help="Tokens a row.")] = 256,
    threads: Annotated[int, typer.Option(help="Threads.")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    child: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print a row a recipe."""
    if child is not None:
        [recipe] = recipes or [""]
        typer.echo(json.dumps(measure(child, recipe, rows, row_tokens, threads)))
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "small", 128, 1)
        write_model(Path(folder) / "large", width, layers)
        for recipe in recipes or RECIPES:
            options = ["--rows", rows, "--row-tokens", row_tokens, "--threads", threads, "--child", folder]
            done = subprocess.run(
                [sys.executable, __file__, recipe, *map(str, options)], capture_output=True, text=True, check=True
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
            typer.echo(line(found[-1]))
    if json_file is not None:
        report = {
            "width": width,
            "layers": layers,
            "rows": rows,
            "row_tokens": row_tokens,
            **environment(),
            "recipes": found,
        }
        atomic_write_text(json_file, json_text(report))


def line(row: dict[str, Any]) -> str:
    """One row to read."""
    above = f"{row['blocks']:6.1f} blocks above the dense model ({row['blocks_without_text']:.1f} without the text)"
    per_million = f"{row['seconds_per_million']:6.2f} s per million parameters"
    return f"{row['recipe']:32} {above}, {row['seconds']:7.1f} s, {per_million}"


if __name__ == "__main__":
    typer.run(main)
