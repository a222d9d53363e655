"""What a small repair of the weights gives back: a yardstick for prompts, which can hardly give back more.

LoRA on every linear layer is trained on the answers that prompts are tuned on, and judged, as prompts are while a bank
is built, by the probability of being wrong on held-out facts. What it cannot find either is gone and not displaced.

    python scripts/study_ceiling.py --model reference --rank 8
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from idp.cli.errors import guarded
from idp.cli.progress import progress
from idp.cli.quiet import hush
from idp.model.aliases import resolve
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.rivals.lora import repaired
from idp.run.store import PrefixStore
from idp.select.groups import group_means
from idp.tune.atlas import atlas_data
from idp.tune.examples import Example
from idp.tune.losses import example_losses
from idp.tune.plan import Plan


def error(lm: LanguageModel, examples: Sequence[Example]) -> float:
    """Mean probability of being wrong, tasks weighing the same."""
    losses = example_losses(PrefixStore(lm, None), examples)  # (N, 1)
    means = group_means(losses, [example.group for example in examples])
    return sum(float(mean) for mean in means.values()) / len(means)


@guarded()
def main(
    model: Annotated[str, typer.Option(help="A reference model that is not quantised.")] = "reference",
    rank: Annotated[int, typer.Option(help="Of the LoRA matrices.")] = 8,
    steps: Annotated[int, typer.Option(help="Updates of 32 examples.")] = 800,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    atlas: Annotated[int, typer.Option(help="Items of each task to train on.")] = 4000,
    seed: Annotated[int, typer.Option(help="Of data, LoRA and order.")] = 0,
    debug: Annotated[bool, typer.Option(help="Show library messages.")] = False,
) -> None:
    """Train LoRA, and compare what it gives back with the gap."""
    hush(debug)
    with progress(debug) as observer:
        lm = load(model, device="cpu", dtype="float32")
        data = atlas_data(lm, atlas, seed)
        tuning = [example for example in data.tuning if not example.is_text]
        judges = [example for example in data.held_out if not example.is_text]
        found = {"dense": error(load(str(resolve(model).dense), device="cpu", dtype="float32"), judges)}
        found["compressed"] = error(lm, judges)
        found["LoRA"] = error(repaired(lm, tuning, rank, Plan(steps, lr, seed=seed), observer), judges)
    gap = found["compressed"] - found["dense"]
    table = Table("model", "error on held-out facts", "share of the gap", title=f"{model}, LoRA of rank {rank}")
    for name, value in found.items():
        table.add_row(name, f"{value:.4f}", f"{100 * (found['compressed'] - value) / gap:.1f} %")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
