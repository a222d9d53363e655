"""Measure what loading a compressed model costs: seconds and peak memory of `idp.load` against transformers alone.

Each side loads in a process of its own, in turn, with the libraries imported before the clock starts. transformers
reads tokenizer and model; `idp` does that, says what is wrong with what cannot be loaded, and runs one token through a
quantised model. That first pass is where many kinds unpack their weights, so both are also measured up to the first
token, peak memory then alone.

    python scripts/bench_load.py --repeats 5 --json runs/bench/load.json
    python scripts/bench_load.py --kinds models/SmolLM2-135M-Instruct.Q4_1.gguf

A vocabulary costs time too, and the models made here have one of 2,048 tokens: hence the second line.
"""

from __future__ import annotations

import importlib
import json as jsonlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from benchmarking import JsonFile, Quick, Repeats, Row, Seed, Threads, random_llama, set_up, show, write
from rich.progress import track

from idp.files import public_name
from idp.model.load import load
from idp.model.loaded import LanguageModel

KINDS = "dense,pruned,w4a16,w8a16,fp8,gptq,gptq-3bit,bnb-8bit,bnb-4bit,gguf-q8,gguf-q4"  # awq takes 20 minutes to make
SHARED = Path(__file__).parents[1] / "tests" / "shared"
WIDTHS = {"num_hidden_layers": 8, "vocab_size": 2048}
QUICK = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
GOAL = 1 / 1.1
MEASURED = {
    "load": ("seconds", "s"),
    "load, first token": ("first", "s"),
    "peak memory, first token": ("peak", "bytes"),
}

CHILD = """
import json, re, sys, time
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
import idp.model.load
side, path = sys.argv[1], Path(sys.argv[2])
begun = time.perf_counter()
if side == "idp":
    model = idp.model.load.load(path, "cpu", "float32").model
else:
    place, file = (path.parent, {"gguf_file": path.name}) if path.suffix == ".gguf" else (path, {})
    AutoTokenizer.from_pretrained(place, **file)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **file)
loaded = time.perf_counter()
with torch.no_grad():
    model(input_ids=torch.zeros(1, 1, dtype=torch.long), use_cache=False)
done = time.perf_counter()
# Not ru_maxrss, which a process takes over from the one that started it.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"seconds": loaded - begun, "first": done - begun, "peak": peak}))
"""


def dense_model(folder: Path, seed: int, quick: bool) -> Path:
    """Save a random LLaMA of 78 million parameters with the reference model's tokenizer."""
    model = random_llama("68m", seed=seed, device="cpu", dtype="float32", **WIDTHS, **(QUICK if quick else {})).model
    lm = LanguageModel(model, load("reference-dense", "cpu").tokenizer, "dense")
    lm.model.config.bos_token_id, lm.model.config.eos_token_id = lm.bos_token_id, lm.eos_token_id
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def checkpoint(kind: str, dense: Path, folder: Path) -> Path:
    """Compress the dense model, or find what was made before, or what `kind` is a path of; returns what is loaded."""
    if Path(kind).exists():
        return Path(kind).absolute()
    out = folder / kind
    if kind != "dense" and not out.exists():
        if str(SHARED) not in sys.path:
            sys.path.append(str(SHARED))
        part = folder / "part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        importlib.import_module("checkpoints").make_checkpoint(kind, dense, part)
        part.rename(out)
    return next(out.glob("*.gguf"), out)


def measure(side: str, path: Path) -> dict[str, float]:
    """Load once in a fresh process."""
    done = subprocess.run([sys.executable, "-c", CHILD, side, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise typer.BadParameter(f"{side} cannot load {path}: {done.stderr.strip().splitlines()[-1]}")
    told: dict[str, float] = jsonlib.loads(done.stdout.strip().splitlines()[-1])
    return told


def rows_of(kind: str, path: Path, repeats: int) -> list[Row]:
    """Measure both sides of one kind in turn, the order swapped every repeat; the first of each is not counted."""
    sides = ["idp", "transformers"]
    told: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for repeat in range(-1, repeats):
        for side in sides if repeat % 2 else sides[::-1]:
            found = measure(side, path)
            if repeat >= 0:
                told[side].append(found)
    return [_row(public_name(kind), work, told["idp"], told["transformers"]) for work in MEASURED]


def _row(kind: str, work: str, ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]) -> Row:
    key, unit = MEASURED[work]
    ratios = [other[key] / one[key] for one, other in zip(ours, theirs, strict=True)]
    medians = [statistics.median(each[key] for each in side) for side in (ours, theirs)]
    known: dict[str, Any] = {"unit": unit, "repeats": len(ratios)}
    ratio, spread = statistics.median(ratios), (min(ratios), max(ratios))
    return Row(kind, work, "transformers", ratio, None, None, GOAL, medians[0], medians[1], spread, **known)


def main(
    kinds: Annotated[str, typer.Option(help="Kinds of checkpoints, or paths of models, with commas.")] = KINDS,
    repeats: Repeats = 5,
    folder: Annotated[Path | None, typer.Option(help="Where checkpoints are made and kept; none keeps them.")] = None,
    threads: Threads = 0,
    seed: Seed = 0,
    json: JsonFile = None,
    quick: Quick = False,
) -> None:
    """Make the checkpoints, measure, print the tables, and write the rows."""
    repeats = set_up(repeats, quick, threads, "68m")
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory() as made:
        place = (folder or Path(made)).absolute()
        place.mkdir(parents=True, exist_ok=True)
        dense = place / "dense"
        if not dense.exists():
            dense_model(dense, seed, quick)
        wanted = [kind.strip() for kind in kinds.split(",")]
        paths = {kind: checkpoint(kind, dense, place) for kind in track(wanted, "making", transient=True)}
        rows = [row for kind in track(wanted, "loading", transient=True) for row in rows_of(kind, paths[kind], repeats)]
    show(rows)
    if json is not None:
        write(rows, json)


if __name__ == "__main__":
    typer.run(main)
