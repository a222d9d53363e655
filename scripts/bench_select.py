"""What choosing costs in banks of up to 100,000 prompts: time, memory, and how often an index finds the exact choice.

Every bank is made, saved, and opened in a process of its own, which chooses with an index of the keys (`ours`) and with
a product with all of them (`theirs`), in turn. The memory is what the process has more than before it opened the bank.

    python scripts/bench_select.py --json select.json

Inputs are `parts`: 100 prompts share a domain of 100 words, of which each has 24 that make two thirds of its inputs,
the rest being words that all texts have; or `texts`: words that all texts have and no more, so that no key is much
nearer than thousands of others, which is the worst case for an index.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import psutil
import torch
import typer
from benchmarking import JsonFile, Quick, Repeats, Seed, Threads, alternate, environment, random_llama, set_up
from rich.console import Console
from rich.table import Table

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.cli.errors import guarded
from idp.dynamic.model import DynamicPromptModel
from idp.files import atomic_write_text, json_text
from idp.model.loaded import LanguageModel
from idp.select.base import Selector
from idp.select.calibration import Calibration
from idp.select.keys import KeysSelector

LENGTH, OWN_WORDS, OWN_SHARE = 32, 24, 2 / 3
DOMAIN, DOMAIN_WORDS = 100, 100
ALONE, BATCH = 50, 256
COLUMNS = {
    "prompts": "{:,}",
    "inputs": "{}",
    "alone_ms": "{:.2f}",
    "exact_alone_ms": "{:.2f}",
    "alone_ratio": "{:.1f}",
    "batch_ms": "{:.3f}",
    "exact_batch_ms": "{:.3f}",
    "recall": "{:.3f}",
    "load_s": "{:.2f}",
    "added_mb": "{:.0f}",
    "process_mb": "{:.0f}",
    "generate_ms": "{:.0f}",
}


def model(width: int, seed: int) -> LanguageModel:
    """A model small enough not to matter."""
    return random_llama(
        "68m", seed=seed, device="cpu", hidden_size=width, intermediate_size=width, num_attention_heads=1
    )


def inputs_of(kind: str, owners: Sequence[int], vocab_size: int, seed: int) -> list[list[int]]:
    """Inputs of prompts, token ids; a prompt's words are the same for every seed.

    Args:
        kind: `parts` or `texts`.
        owners: the prompt of each input.
        vocab_size: of the model.
        seed: of the inputs.
    """
    draw = np.random.default_rng((seed, 1))
    frequency = 1 / np.arange(1, vocab_size + 1)
    ids = draw.choice(vocab_size, size=(len(owners), LENGTH), p=frequency / frequency.sum())  # (N, T)
    if kind == "parts":
        own = np.stack([words_of(owner, vocab_size) for owner in owners])  # (N, 24)
        chosen = np.take_along_axis(own, draw.integers(OWN_WORDS, size=ids.shape), axis=1)  # (N, T)
        ids = np.where(draw.random(ids.shape) < OWN_SHARE, chosen, ids)
    rows: list[list[int]] = ids.tolist()
    return rows


def words_of(prompt: int, vocab_size: int) -> npt.NDArray[np.int64]:
    """The words of a prompt, `(24,)`, out of those of its domain."""
    domain = np.random.default_rng((2, prompt // DOMAIN)).integers(vocab_size, size=DOMAIN_WORDS)
    return np.random.default_rng((3, prompt)).choice(domain, size=OWN_WORDS, replace=False)


def save_bank(folder: Path, lm: LanguageModel, kind: str, prompts: int, tokens: int, seed: int) -> None:
    """Make a bank with a fitted and indexed `keys`, each key being that of two inputs, and save it."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = 0.05 * torch.randn(prompts, tokens, lm.hidden_size, generator=generator)  # (m, n, d)
    bank = PromptBank([Prompt(f"prompt-{row:06d}", embedding=rows) for row, rows in enumerate(embeddings)])
    owners = [*range(prompts), *range(prompts)]
    calibration = Calibration(inputs_of(kind, owners, lm.vocab_size, seed), hints=owners)
    selector = KeysSelector(index="approximate").fit(bank, lm, calibration)
    bank.with_selector("keys", selector.state()).save(folder)


def measured(folder: Path, kind: str, width: int, repeats: int, seed: int, threads: int) -> dict[str, Any]:
    """Open a bank and choose from it: milliseconds an input, megabytes, and the share of exact choices."""
    torch.set_num_threads(threads or torch.get_num_threads())
    lm = model(width, seed)
    lm.embed(torch.tensor([[5]]))
    before, begun = resident(), perf_counter()
    bank = PromptBank.load(folder)
    indexed = KeysSelector(index="approximate").load_state(bank.selectors["keys"], bank, lm)
    loaded = perf_counter() - begun
    owners = np.random.default_rng(seed + 1).integers(len(bank), size=1000).tolist()
    inputs = inputs_of(kind, owners, lm.vocab_size, seed + 1)
    found = [choice.index for choice in indexed.select_batch(inputs)]
    generate = generating(DynamicPromptModel(lm, bank, indexed), inputs)
    after = resident()
    exact = KeysSelector(index="exact").load_state(bank.selectors["keys"], bank, lm)
    wanted = [choice.index for choice in exact.select_batch(inputs)]
    few, many = inputs[:ALONE], inputs[:BATCH]
    alone = alternate(lambda: one_by_one(indexed, few), lambda: one_by_one(exact, few), repeats)
    batch = alternate(lambda: indexed.select_batch(many), lambda: exact.select_batch(many), repeats)
    return {
        "prompts": len(bank),
        "inputs": kind,
        "alone_ms": 1e3 * alone.seconds / ALONE,
        "exact_alone_ms": 1e3 * alone.against_seconds / ALONE,
        "alone_ratio": statistics.median(alone.ratios),
        "batch_ms": 1e3 * batch.seconds / BATCH,
        "exact_batch_ms": 1e3 * batch.against_seconds / BATCH,
        "recall": float(np.mean(np.array(found) == np.array(wanted))),
        "load_s": loaded,
        "added_mb": (after - before) / 1e6,
        "process_mb": after / 1e6,
        "generate_ms": generate,
    }


def one_by_one(selector: Selector, inputs: list[list[int]]) -> None:
    """Choose for each input by itself."""
    for ids in inputs:
        selector.select(ids)


def generating(prompted: DynamicPromptModel, inputs: list[list[int]]) -> float:
    """Milliseconds of choosing, reading and compiling a prompt that was not used before, and one new token."""
    begun = perf_counter()
    for ids in inputs[:ALONE]:
        prompted.generate(torch.tensor([ids]), max_new_tokens=1, do_sample=False)
    return 1e3 * (perf_counter() - begun) / ALONE


def resident() -> int:
    """Bytes of this process that are in memory, mapped files included."""
    return int(psutil.Process().memory_info().rss)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table."""
    table = Table(*COLUMNS, title="Choosing: ours with an index, exact with all keys; milliseconds an input")
    for row in rows:
        table.add_row(*(form.format(row[name]) for name, form in COLUMNS.items()))
    Console(width=170).print(table)


@guarded()
def main(
    sizes: Annotated[str, typer.Option(help="Comma-separated: prompts of each bank.")] = "10,1000,10000,100000",
    kinds: Annotated[str, typer.Option(help="Comma-separated: parts, texts.")] = "parts,texts",
    width: Annotated[int, typer.Option(min=8, help="Width of the model.")] = 128,
    tokens: Annotated[int, typer.Option(min=1, help="Length of a prompt.")] = 16,
    repeats: Repeats = 7,
    threads: Threads = 0,
    seed: Seed = 0,
    quick: Quick = False,
    json: JsonFile = None,
) -> None:
    """Make the banks, measure each, and print a table."""
    repeats = set_up(repeats, quick, threads, "68m")
    lm, rows = model(width, seed), []
    for size in [10, 100] if quick else [int(piece) for piece in sizes.split(",")]:
        for kind in kinds.split(","):
            with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                save_bank(Path(folder), lm, kind, size, tokens, seed)
                rows.append(fresh.submit(measured, Path(folder), kind, width, repeats, seed, threads).result())
                show(rows[-1:])
    show(rows)
    if json is not None:
        atomic_write_text(json, json_text([{**row, "environment": environment()} for row in rows]))


if __name__ == "__main__":
    typer.run(main)
