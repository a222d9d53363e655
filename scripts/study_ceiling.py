"""What a small repair of the weights gives back: a yardstick for prompts, which can hardly give back more.

LoRA on every linear layer is trained on the answers that prompts are tuned on, and judged, as prompts are while a bank
is built, by the probability of being wrong on held-out facts. What it cannot find either is gone and not displaced.

    python scripts/study_ceiling.py --model reference --rank 8
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy

from idp.bank.peft import require_peft
from idp.cli.errors import guarded
from idp.cli.progress import progress
from idp.cli.quiet import hush
from idp.model.aliases import resolve
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.observer import Observer
from idp.run.inputs import pad_right
from idp.run.store import PrefixStore
from idp.select.groups import group_means
from idp.tune.atlas import atlas_data
from idp.tune.examples import Example
from idp.tune.losses import example_losses
from idp.tune.plan import Plan, make_optimizer
from idp.tune.steps import drawn

IGNORED = -100


def padded(examples: Sequence[Example], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, mask and labels of contexts with their right answers, `(B, T)` each."""
    ids, mask = pad_right([[*example.context, *example.right] for example in examples], pad)
    labels, _ = pad_right([[*[IGNORED] * len(example.context), *example.right] for example in examples], IGNORED)
    return ids, mask, labels


def trained(lm: LanguageModel, examples: Sequence[Example], rank: int, plan: Plan, observer: Observer) -> LanguageModel:
    """The model with LoRA of a rank in every linear layer, trained and merged into the weights."""
    peft: Any = require_peft()
    torch.manual_seed(plan.seed)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    model = peft.get_peft_model(lm.model, config)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(plan, parameters)
    count = sum(parameter.numel() for parameter in parameters)
    observer.stage(f"LoRA of rank {rank}, {count:,} parameters", plan.steps)
    for step in range(plan.steps):
        batch = [examples[place] for place in drawn(len(examples), plan, step)]
        ids, mask, labels = padded(batch, lm.pad_token_id)
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]  # (B, T - 1, V)
        torch.autograd.backward(cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED))
        torch.nn.utils.clip_grad_norm_(parameters, plan.clip)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        observer.advance(1)
    return LanguageModel(model.merge_and_unload().eval(), lm.tokenizer, f"{lm.name} with LoRA")


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
        found["LoRA"] = error(trained(lm, tuning, rank, Plan(steps, lr, seed=seed), observer), judges)
    gap = found["compressed"] - found["dense"]
    table = Table("model", "error on held-out facts", "share of the gap", title=f"{model}, LoRA of rank {rank}")
    for name, value in found.items():
        table.add_row(name, f"{value:.4f}", f"{100 * (found['compressed'] - value) / gap:.1f} %")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
