"""Train the embedded reference model on the little world's text.

Deterministic for a seed, resumes from its last checkpoint, shows progress, and leaves the loss curve as CSV and PNG.

    python scripts/train_reference.py --work runs/reference --out idp/reference/models/dense
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from idp.errors import IdpError
from idp.model.device import resolve_device
from idp.reference.corpus import epoch_documents
from idp.reference.tokenizer import train_tokenizer
from idp.reference.world import World, build_world

CONTEXT = 256
CHECKPOINT, CURVE = "checkpoint.safetensors", "loss.csv"
TOKENIZER_EPOCH = 1000  # any epoch that tells of the whole world
SHAPE = {
    "hidden_size": 160,
    "intermediate_size": 432,
    "num_hidden_layers": 4,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A freshly initialised model; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                **SHAPE,
            )
        )


def pack(documents: list[str], tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Documents as one stream ``<s> text </s> <s> ...``, cut into rows."""
    eos = tokenizer.eos_token_id
    stream = [token for ids in tokenizer(documents).input_ids for token in [*ids, eos]]
    rows = len(stream) // CONTEXT
    return torch.tensor(stream[: rows * CONTEXT]).view(rows, CONTEXT)  # (R, T)


def batches(world: World, tokenizer: PreTrainedTokenizerFast, size: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches, epoch after epoch; the n-th batch depends on the seed only."""
    epoch = 0
    while True:
        rows = pack(epoch_documents(world, epoch, seed), tokenizer)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed + epoch))
        yield from (rows[order[i : i + size]] for i in range(0, len(order) - size + 1, size))
        epoch += 1


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Linear warm-up, then a cosine to 2 % of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def make_optimizer(model: LlamaForCausalLM, peak: float) -> torch.optim.AdamW:
    """AdamW that decays matrices only."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95))


def save_checkpoint(
    path: Path, model: LlamaForCausalLM, optimizer: torch.optim.AdamW, step: int, settings: str
) -> None:
    """Weights, moments and step in one file, replaced atomically."""
    moments = {
        f"opt.{index}.{key}": value
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }
    weights = {f"model.{name}": p.data for name, p in model.named_parameters()}
    part = path.with_suffix(".part")
    save_file({**weights, **moments}, part, metadata={"step": str(step), "settings": settings})
    part.replace(path)


def load_checkpoint(path: Path, model: LlamaForCausalLM, optimizer: torch.optim.AdamW, settings: str) -> int:
    """Restore what `save_checkpoint` wrote; returns the next step (0 without a checkpoint).

    Raises:
        SystemExit: the checkpoint is another run's.
    """
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if (other := metadata.get("settings")) != settings:
        raise SystemExit(
            f"error: {path} is of another run ({other}), not of this one ({settings}): give another --work."
        )
    tensors = load_file(path)
    for name, parameter in model.named_parameters():
        parameter.data.copy_(tensors[f"model.{name}"])
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("opt."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"])


def train_step(run: Any, model: LlamaForCausalLM, optimizer: torch.optim.AdamW, rows: torch.Tensor, lr: float) -> float:
    """One update on next-token loss; returns the loss in nats a token."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = run(input_ids=rows, labels=rows, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def train(
    run: Any,
    model: LlamaForCausalLM,
    optimizer: torch.optim.AdamW,
    stream: Iterator[torch.Tensor],
    *,
    start: int,
    steps: int,
    peak: float,
    every: int,
    work: Path,
    settings: str,
) -> None:
    """Do the remaining steps, with a checkpoint and a point of the loss curve now and then."""
    columns = (TextColumn("loss {task.fields[loss]:.3f}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task("train", total=steps, completed=start, loss=float("nan"))
        losses, began = [], time.monotonic()
        for step in range(start, steps):
            rows = next(stream).to(model.device)
            losses.append(train_step(run, model, optimizer, rows, learning_rate(step, steps, peak)))
            progress.update(bar, advance=1, loss=losses[-1])
            if (step + 1) % every == 0 or step + 1 == steps:
                mean = sum(losses) / len(losses)
                save_checkpoint(work / CHECKPOINT, model, optimizer, step + 1, settings)
                with (work / CURVE).open("a", encoding="utf-8") as file:
                    file.write(f"{step + 1},{mean:.4f}\n")
                progress.console.log(f"step {step + 1} loss {mean:.4f} {time.monotonic() - began:.0f} s")
                losses = []


def draw_curve(csv_path: Path) -> None:
    """The loss curve as PNG beside its CSV, where matplotlib is installed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return
    with csv_path.open(encoding="utf-8") as file:
        rows = [(int(step), float(loss)) for step, loss in list(csv.reader(file))[1:]]
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot(*zip(*rows, strict=True))
    axes.set(xlabel="step", ylabel="loss (nats per token)", title="Reference model")
    figure.savefig(csv_path.with_suffix(".png"), dpi=120)


def main(
    out: Annotated[Path, typer.Option(help="Folder for the finished model.")] = Path("idp/reference/models/dense"),
    work: Annotated[Path, typer.Option(help="Folder for checkpoints and the loss curve.")] = Path("runs/reference"),
    steps: Annotated[int, typer.Option(help="Updates of 4,096 tokens.")] = 3500,
    batch_size: Annotated[int, typer.Option(help="Rows of 256 tokens in a batch.")] = 16,
    peak: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    seed: Annotated[int, typer.Option(help="Seed of world, weights and order.")] = 0,
    scale: Annotated[float, typer.Option(help="Size of the world; for tests.")] = 1.0,
    every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 100,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    compiled: Annotated[
        bool, typer.Option("--compile", help="torch.compile: some 15 % faster, needs a compiler.")
    ] = False,
) -> None:
    """Train, resume if there is a checkpoint, and save model and tokenizer."""
    try:
        where = resolve_device(device)
    except IdpError as error:
        raise typer.BadParameter(str(error)) from error
    work.mkdir(parents=True, exist_ok=True)
    world = build_world(seed, scale)
    tokenizer = train_tokenizer(epoch_documents(world, TOKENIZER_EPOCH, seed))
    model = build_model(tokenizer, seed).to(where)
    optimizer = make_optimizer(model, peak)
    settings = f"seed {seed}, scale {scale:g}, {steps} steps of {batch_size} rows, peak {peak:g}"
    start = load_checkpoint(work / CHECKPOINT, model, optimizer, settings)
    if not start:
        (work / CURVE).write_text("step,loss\n", encoding="utf-8")
    stream = batches(world, tokenizer, batch_size, seed)
    for _ in range(start):
        next(stream)
    typer.echo(f"{len(world.facts)} facts, {model.num_parameters() / 1e6:.2f} M parameters, step {start} of {steps}")
    run = torch.compile(model) if compiled else model
    train(run, model, optimizer, stream, start=start, steps=steps, peak=peak, every=every, work=work, settings=settings)
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    draw_curve(work / CURVE)
    typer.echo(f"saved {out}")


if __name__ == "__main__":
    typer.run(main)
