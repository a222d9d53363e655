"""Tune the bank of a compressed reference model: a static prompt, one for each part of the data, and the selectors.

Every prompt has a checkpoint of its own: an interrupted run continues, and a finished prompt is not tuned again.

    python scripts/tune_reference_bank.py --variant gptq
"""

from __future__ import annotations

import hashlib
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
from safetensors.torch import load_file, save
from torch import Tensor

import idp
from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import IdpError
from idp.files import atomic_write_bytes
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.reference.world import World, build_world
from idp.run.store import PrefixStore
from idp.select.base import Calibration
from idp.select.groups import group_means
from idp.tune.atlas import TASKS, atlas_examples
from idp.tune.examples import Example
from idp.tune.fitting import cross_fitted_losses, with_fitted_selectors
from idp.tune.initial import frequent_rows
from idp.tune.loop import Tuned, tune_prompt
from idp.tune.losses import example_losses
from idp.tune.objective import Goal
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
        steps_part: updates of each part's prompt.
        parts: parts of the data, each with a prompt of its own.
        items_per_task: items of each of the nine tasks, a quarter of which is held out.
        length: virtual tokens of every prompt.
        batch_size: examples an update.
        lr: peak learning rate of the static prompt.
        lr_part: peak learning rate of the others, which start from it.
        goal: what all prompts are tuned for; see `Objective`.
        seed: of everything drawn at random.
    """

    steps_static: int = 1600
    steps_part: int = 300
    parts: int = 20
    items_per_task: int = 8000
    length: int = 16
    batch_size: int = 32
    lr: float = 0.03
    lr_part: float = 0.02
    goal: Goal = "blend"
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
        steps = recipe.steps_static if static else recipe.steps_part
        bar = self.progress.add_task(name, total=steps)
        tuned = tune_prompt(
            self.lm,
            start,
            examples,
            judges,
            steps=steps,
            lr=recipe.lr if static else recipe.lr_part,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            goal=recipe.goal,
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
        "objective": recipe.goal,
        "steps": steps,
        "best_step": tuned.best.step,
        "held_out_loss": round(tuned.best.held_out, 4),
        "batch_size": recipe.batch_size,
        "lr": recipe.lr if init != "static" else recipe.lr_part,
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
    if static.embedding is None or not recipe.parts:
        return [static], None
    parts = Partition.fit(lm, shop.tuning, recipe.parts, recipe.seed)
    tuning, judging = parts.assign(lm, shop.tuning), parts.assign(lm, judges)
    prompts = [static]
    for part in range(recipe.parts):
        own = members(judges, judging, part)
        prompts.append(
            shop.tune(
                f"part-{part}",
                static.embedding,
                members(shop.tuning, tuning, part),
                own if len(own) >= FEWEST_HELD_OUT else judges,
                "static",
            )
        )
    return prompts, parts


def members(examples: Sequence[Example], assigned: Sequence[int], part: int) -> list[Example]:
    """The examples of one part."""
    return [example for example, own in zip(examples, assigned, strict=True) if own == part]


def judged(held_out: Sequence[Example]) -> list[Example]:
    """The examples that selectors are fitted on: of running text only some, since it is costly and has one context."""
    texts = [example for example in held_out if example.is_text]
    return [example for example in held_out if not example.is_text] + texts[:TEXTS_JUDGED]


def calibrate(shop: Workshop, bank: PromptBank, parts: Partition | None) -> Calibration:
    """The loss of held-out examples under every prompt and under none, measured once and kept."""
    examples = judged(shop.held_out)
    of_what = [[prompt.digest for prompt in bank], examples, shop.lm.fingerprint, idp.__version__]
    path = shop.work / f"losses-{hashlib.sha256(repr(of_what).encode()).hexdigest()[:16]}.safetensors"
    if not path.exists():
        atomic_write_bytes(path, save({"losses": measured(shop, bank, examples)}))
    return Calibration(
        [example.context for example in examples],
        load_file(path)["losses"],
        [example.group for example in examples],
        None if parts is None else [1 + part for part in parts.assign(shop.lm, examples)],  # the static one is 0
    )


def measured(shop: Workshop, bank: PromptBank, examples: Sequence[Example]) -> Tensor:
    """Losses `(N, m + 1)`, with a progress bar."""
    bar = shop.progress.add_task("losses", total=len(examples) * (len(bank) + 1))
    return example_losses(PrefixStore(shop.lm, bank), examples, advance=lambda done: shop.progress.advance(bar, done))


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
        calibration = calibrate(shop, bank, parts)
    costs = cross_fitted_losses(bank, lm, calibration, recipe.seed)
    own = calibration.hinted_arms(len(bank))
    if own is not None:  # what the router could do by just finding the part again
        costs["own part"] = calibration.require_losses(len(bank)).gather(1, own[:, None])[:, 0]
    groups = calibration.groups or []
    return with_fitted_selectors(bank, lm, calibration, recipe.seed), {
        name: {task: float(mean) for task, mean in group_means(cost, groups).items()} for name, cost in costs.items()
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
    steps_part: Annotated[int, typer.Option(help="Updates of each part's prompt.")] = Recipe.steps_part,
    parts: Annotated[int, typer.Option(help="Parts of the data, a prompt each; 0 for none.")] = Recipe.parts,
    items_per_task: Annotated[int, typer.Option(help="Items a task; a quarter is held out.")] = Recipe.items_per_task,
    length: Annotated[int, typer.Option(help="Virtual tokens a prompt.")] = Recipe.length,
    lr: Annotated[float, typer.Option(help="Peak learning rate of the static prompt.")] = Recipe.lr,
    lr_part: Annotated[float, typer.Option(help="Peak learning rate of the other prompts.")] = Recipe.lr_part,
    batch_size: Annotated[int, typer.Option(help="Examples an update.")] = Recipe.batch_size,
    goal: Annotated[Goal, typer.Option(help="What prompts are tuned for.")] = Recipe.goal,
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
        steps_part,
        parts,
        items_per_task,
        length,
        batch_size,
        lr,
        lr_part,
        goal,
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
