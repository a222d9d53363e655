"""Tune the bank of a compressed reference model: a static prompt, one for each part of the data, and the selectors.

Every prompt has a checkpoint of its own: an interrupted run continues, and a finished prompt is not tuned again.

    python scripts/tune_reference_bank.py --variant gptq
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import IdpError
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.reference.world import World, build_world
from idp.run.prefix import PrefixStore
from idp.select.base import Calibration
from idp.tune.affinity import cluster_gradients
from idp.tune.atlas import TASKS, atlas_examples
from idp.tune.examples import Example
from idp.tune.fitting import cross_fitted_losses, group_mean, with_fitted_selectors
from idp.tune.initial import frequent_rows
from idp.tune.loop import Tuned, tune_prompt
from idp.tune.losses import example_losses
from idp.tune.partition import Partition

VARIANTS = ("gptq", "sparse")
CORPUS = "the reference world's tuning facts"
FEWEST_HELD_OUT = 20
TEXTS_JUDGED = 200


@dataclass(frozen=True)
class Recipe:
    """All settings of a bank.

    Attributes:
        steps_static: updates of the static prompt.
        steps_cluster: updates of each cluster's prompt.
        fine_clusters: clusters of the contexts' embeddings.
        clusters: parts that these are merged into, each with a prompt of its own.
        items_per_task: items of each of the nine tasks, a quarter of which is held out.
        length: virtual tokens of every prompt.
        batch_size: examples an update.
        lr: peak learning rate of the static prompt.
        lr_cluster: peak learning rate of the others, which start from it.
        seed: of everything drawn at random.
    """

    steps_static: int = 1600
    steps_cluster: int = 400
    fine_clusters: int = 96
    clusters: int = 12
    items_per_task: int = 6000
    length: int = 16
    batch_size: int = 32
    lr: float = 0.03
    lr_cluster: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class Workshop:
    """The model, the data and the folder of checkpoints that one bank is made with."""

    lm: LanguageModel
    recipe: Recipe
    tuning: list[Example]
    held_out: list[Example]
    work: Path
    progress: Progress

    def tune(self, name: str, start: Tensor, examples: list[Example], judges: list[Example], init: str) -> Prompt:
        """Tune one prompt, or read it from its checkpoint if that was done."""
        static = name == "static"
        recipe = self.recipe
        steps = recipe.steps_static if static else recipe.steps_cluster
        bar = self.progress.add_task(name, total=steps)
        tuned = tune_prompt(
            self.lm,
            start,
            examples,
            judges,
            steps=steps,
            lr=recipe.lr if static else recipe.lr_cluster,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            checkpoint=self.work / f"{name}.safetensors",
            advance=lambda done: self.progress.advance(bar, done),
        )
        write_curve(self.work / f"{name}.csv", tuned)
        self.progress.console.log(summary(name, tuned, len(examples)))
        return Prompt(name, embedding=tuned.embedding, provenance=provenance(recipe, tuned, init, len(examples), steps))


def summary(name: str, tuned: Tuned, examples: int) -> str:
    """One line about a tuned prompt."""
    first, best = tuned.curve[0].held_out, tuned.best
    return f"{name}: held-out loss {first:.3f} -> {best.held_out:.3f} at step {best.step} ({examples} examples)"


def provenance(recipe: Recipe, tuned: Tuned, init: str, examples: int, steps: int) -> dict[str, Any]:
    """Where a prompt comes from."""
    return {
        "length": recipe.length,
        "init": init,
        "corpus": CORPUS,
        "examples": examples,
        "objective": "blend",
        "steps": steps,
        "best_step": tuned.best.step,
        "held_out_loss": round(tuned.best.held_out, 4),
        "batch_size": recipe.batch_size,
        "lr": recipe.lr if init != "static" else recipe.lr_cluster,
        "seed": recipe.seed,
    }


def write_curve(path: Path, tuned: Tuned) -> None:
    """The tuning curve as CSV; training loss is empty where there is none yet."""
    rows = [f"{p.step},{'' if math.isnan(p.train) else format(p.train, '.4f')},{p.held_out:.4f}" for p in tuned.curve]
    path.write_text("\n".join(["step,train,held_out", *rows]) + "\n", encoding="utf-8")


def tune_prompts(shop: Workshop) -> tuple[list[Prompt], Partition | None]:
    """The static prompt, then one a part of the data, each started from the static one; and the parts."""
    recipe, lm = shop.recipe, shop.lm
    judges = shop.held_out[::3]
    start = frequent_rows(lm, shop.tuning, recipe.length, recipe.seed)
    static = shop.tune("static", start, shop.tuning, judges, "rows of frequent tokens")
    if static.embedding is None or not recipe.clusters:
        return [static], None
    parts = partition(shop, static.embedding)
    tuning, judging = parts.assign(lm, shop.tuning), parts.assign(lm, judges)
    prompts = [static]
    for cluster in range(recipe.clusters):
        own = members(judges, judging, cluster)
        prompts.append(
            shop.tune(
                f"cluster-{cluster}",
                static.embedding,
                members(shop.tuning, tuning, cluster),
                own if len(own) >= FEWEST_HELD_OUT else judges,
                "static",
            )
        )
    return prompts, parts


def partition(shop: Workshop, static: Tensor) -> Partition:
    """Fine clusters of embeddings, merged where they ask the same of the static prompt."""
    recipe, lm = shop.recipe, shop.lm
    fine = Partition.fit(lm, shop.tuning, recipe.fine_clusters, recipe.seed)
    bar = shop.progress.add_task("partition", total=recipe.fine_clusters)
    gradients = cluster_gradients(
        lm,
        static,
        shop.tuning,
        fine.assign(lm, shop.tuning),
        seed=recipe.seed,
        advance=lambda done: shop.progress.advance(bar, done),
    )
    return fine.merged(gradients, recipe.clusters, recipe.seed)


def members(examples: Sequence[Example], assigned: Sequence[int], cluster: int) -> list[Example]:
    """The examples of one cluster."""
    return [example for example, own in zip(examples, assigned, strict=True) if own == cluster]


def judged(held_out: Sequence[Example]) -> list[Example]:
    """The examples that selectors are fitted on: of running text only some, since it is costly and has one context."""
    texts = [example for example in held_out if example.is_text]
    return [example for example in held_out if not example.is_text] + texts[:TEXTS_JUDGED]


def calibrate(shop: Workshop, bank: PromptBank) -> Calibration:
    """The loss of held-out examples under every prompt and under none."""
    examples = judged(shop.held_out)
    bar = shop.progress.add_task("losses", total=len(examples) * (len(bank) + 1))
    losses = example_losses(PrefixStore(shop.lm, bank), examples, advance=lambda done: shop.progress.advance(bar, done))
    return Calibration([example.context for example in examples], losses, [example.group for example in examples])


def make_bank(
    lm: LanguageModel, world: World, recipe: Recipe, work: Path, console: Console
) -> tuple[PromptBank, dict[str, dict[str, float]]]:
    """Tune all prompts, fit all selectors, and estimate what each selector costs on inputs it was not fitted on.

    Returns:
        The bank, and for each way to choose the mean loss of each task.
    """
    tuning, held_out = atlas_examples(lm, world, recipe.items_per_task, recipe.seed)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        shop = Workshop(lm, recipe, tuning, held_out, work, progress)
        facts = {"corpus": CORPUS, "tasks": list(TASKS), "tuning": len(tuning), "held_out": len(held_out)}
        prompts, parts = tune_prompts(shop)
        bank = PromptBank(prompts, fingerprint=lm.fingerprint, provenance={**vars(recipe), **facts})
        calibration = calibrate(shop, bank)
    costs = cross_fitted_losses(bank, lm, calibration, recipe.seed)
    if parts is not None:  # what the router could do by just finding the part again
        own = 1 + torch.tensor(parts.assign(lm, judged(held_out)))  # (N,)
        costs["own part"] = calibration.require_losses(len(bank)).gather(1, own[:, None])[:, 0]
    groups = calibration.groups or []
    return with_fitted_selectors(bank, lm, calibration, recipe.seed), {
        name: group_mean(cost, groups) for name, cost in costs.items()
    }


def table_of(costs: dict[str, dict[str, float]]) -> Table:
    """Mean loss of each way to choose a prompt, over all tasks and in each."""
    table = Table("chosen by", "mean", *TASKS, title="Held-out expected error (selectors fitted on other examples)")
    for name, by_task in costs.items():
        mean = sum(by_task.values()) / len(by_task)
        table.add_row(name, f"{mean:.3f}", *(f"{by_task[task]:.3f}" if task in by_task else "" for task in TASKS))
    return table


def main(
    variant: Annotated[str, typer.Option(help="gptq, sparse, or the path of a model.")] = "gptq",
    steps_static: Annotated[int, typer.Option(help="Updates of the static prompt.")] = Recipe.steps_static,
    steps_cluster: Annotated[int, typer.Option(help="Updates of each cluster's prompt.")] = Recipe.steps_cluster,
    fine_clusters: Annotated[int, typer.Option(help="Clusters of embeddings.")] = Recipe.fine_clusters,
    clusters: Annotated[int, typer.Option(help="Parts these are merged into, a prompt each.")] = Recipe.clusters,
    items_per_task: Annotated[int, typer.Option(help="Items a task; a quarter is held out.")] = Recipe.items_per_task,
    length: Annotated[int, typer.Option(help="Virtual tokens a prompt.")] = Recipe.length,
    lr: Annotated[float, typer.Option(help="Peak learning rate of the static prompt.")] = Recipe.lr,
    lr_cluster: Annotated[float, typer.Option(help="Peak learning rate of the other prompts.")] = Recipe.lr_cluster,
    batch_size: Annotated[int, typer.Option(help="Examples an update.")] = Recipe.batch_size,
    seed: Annotated[int, typer.Option(help="Seed of items, starts and order.")] = Recipe.seed,
    world_seed: Annotated[int, typer.Option(help="Seed of the world the model was trained on.")] = 0,
    work: Annotated[Path | None, typer.Option(help="Folder of checkpoints and curves; runs/tune/<variant>.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the bank; prompt_bank/tuned/<variant>.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Tune the prompts, fit the selectors, save the bank, and print what each selector costs."""
    console = Console(stderr=True)
    name = variant if variant in VARIANTS else Path(variant).name
    recipe = Recipe(
        steps_static,
        steps_cluster,
        fine_clusters,
        clusters,
        items_per_task,
        length,
        batch_size,
        lr,
        lr_cluster,
        seed,
    )
    try:
        lm = load(f"reference-{variant}" if variant in VARIANTS else variant, device, torch.float32)
        folder = work or Path("runs/tune") / name
        bank, costs = make_bank(lm, build_world(world_seed), recipe, folder, console)
        saved = bank.save(out or Path("prompt_bank/tuned") / name)
    except IdpError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from error
    Console(width=120).print(table_of(costs))
    typer.echo(f"saved {len(bank)} prompts and {len(bank.selectors)} selectors to {saved}")


if __name__ == "__main__":
    typer.run(main)
