"""What the benchmarks share: models, timing of two sides in alternation, and the rows they report."""

from __future__ import annotations

import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from idp.files import atomic_write_text, json_text
from idp.model.device import resolve_device, resolve_dtype
from idp.model.load import load
from idp.model.loaded import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEWEST_REPEATS = 5
WIDTH = 120  # of the table where it is read from a file
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
SHAPES: dict[str, dict[str, int]] = {
    "68m": {  # that of the smallest LLaMA in public use, JackFram/llama-68m
        "vocab_size": 32_000,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 2,
        "num_attention_heads": 12,
        "max_position_embeddings": 2048,
    },
    "61m": {  # LLaMA-7B's proportions: an MLP 2.7 times as wide as the model
        "vocab_size": 32_000,
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 9,
        "num_attention_heads": 8,
        "max_position_embeddings": 2048,
    },
    "7b": {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
    },
}

Repeats = Annotated[int, typer.Option(min=1, help="Times each side is measured; at least 5 without --quick.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of torch on the CPU; 0 leaves torch's own number.")]
Models = Annotated[str, typer.Option(help="Comma-separated: reference, random, or anything idp can load.")]
Shape = Annotated[str, typer.Option(help=f"Shape of the random model: {', '.join(SHAPES)}.")]
Tokens = Annotated[int, typer.Option(min=0, help="Most tokens of a request; 0 for the model's own, 32 or 512.")]
NewTokens = Annotated[int, typer.Option(min=0, help="Tokens generated for each; 0 for the model's own, 64 or 128.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="File the rows are written to.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
DType = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Quick = Annotated[bool, typer.Option("--quick", help="Only see that it runs: tiny sizes, figures that mean nothing.")]
Seed = Annotated[int, typer.Option(min=0, help="Of weights, prompts and inputs.")]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        model: what was run.
        work: what was done.
        against: what it was compared with.
        ratio: what `against` took, divided by what `work` took: above 1 is better. Of times it is the median over
            repeats of the ratio within a repeat, so that a drift of the machine, which hits both sides of a repeat,
            cancels. None where a difference that is not positive leaves no ratio to state.
        floor_ratio: what `ratio` would be if `work` took only its floor, the tokens that must be computed divided by
            the model's measured tokens a second.
        max_abs_error: largest difference of the results, where both sides compute the same.
        goal: the least `ratio` that is wanted.
        seconds: median of `work` (in `unit`).
        against_seconds: median of `against` (in `unit`).
        spread: smallest and largest ratio of the repeats.
        floor_seconds: the floor of `work`.
        unit: `s`, `bytes`, or what else was counted.
        note: what one should know to read the row.
        device: where it ran.
        dtype: the model's floating-point type.
        repeats: times each side was measured.
    """

    model: str
    work: str
    against: str
    ratio: float | None
    floor_ratio: float | None
    max_abs_error: float | None
    goal: float | None
    seconds: float
    against_seconds: float
    spread: tuple[float, float] | None
    floor_seconds: float | None = None
    unit: str = "s"
    note: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    repeats: int = 1

    @property
    def reached(self) -> bool | None:
        """Whether the goal was reached; None where there is none."""
        return None if self.goal is None or self.ratio is None else self.ratio >= self.goal


class Timing(NamedTuple):
    """Seconds of two sides, one pair a repeat."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Our median."""
        return statistics.median(self.ours)

    @property
    def against_seconds(self) -> float:
        """Their median."""
        return statistics.median(self.theirs)

    @property
    def ratios(self) -> list[float]:
        """Theirs divided by ours, of each repeat."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]


def compare(
    lm: LanguageModel,
    work: str,
    against: str,
    timing: Timing,
    *,
    floor_seconds: float | None = None,
    max_abs_error: float | None = None,
    goal: float | None = None,
    note: str = "",
) -> Row:
    """Make the row of a timing."""
    ratios = timing.ratios
    floor = None if not floor_seconds else timing.against_seconds / floor_seconds
    times = (timing.seconds, timing.against_seconds, (min(ratios), max(ratios)), floor_seconds)
    ran = {"note": note, **ran_on(lm), "repeats": len(ratios)}
    return Row(lm.name, work, against, statistics.median(ratios), floor, max_abs_error, goal, *times, **ran)


def ran_on(lm: LanguageModel) -> dict[str, Any]:
    """Fields of a row that say where the model ran."""
    return {"device": str(lm.device), "dtype": str(lm.dtype).removeprefix("torch.")}


def round_robin(
    sides: Sequence[Callable[[], object]],
    repeats: int,
    progress: Callable[[], object] | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> list[tuple[float, ...]]:
    """Time several calls in turn, after one of each to warm up; every repeat begins with another one.

    Args:
        sides: the calls.
        repeats: times each is measured.
        progress: called after every repeat.
        clock: tells seconds.

    Returns:
        For each call its seconds, one a repeat.
    """
    for side in sides:
        side()
    seconds: list[list[float]] = [[] for _ in sides]
    for repeat in range(repeats):
        for place in range(len(sides)):
            number = (place + repeat) % len(sides)
            seconds[number].append(_seconds_of(sides[number], clock))
        if progress is not None:
            progress()
    return [tuple(times) for times in seconds]


def alternate(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    repeats: int,
    progress: Callable[[], object] | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Time two calls in alternation, the order swapped every repeat; arguments as for `round_robin`."""
    return Timing(*round_robin((ours, theirs), repeats, progress, clock=clock))


def _seconds_of(call: Callable[[], object], clock: Callable[[], float]) -> float:
    gc.collect()  # nobody pays for the garbage of the call before
    synchronise()
    begun = clock()
    result = call()
    synchronise()
    spent = clock() - begun
    del result  # freeing it is not part of the work
    return spent


def synchronise() -> None:
    """Wait until every accelerator has done what it was told; a CPU always has."""
    for number in range(torch.cuda.device_count()):
        torch.cuda.synchronize(number)


@torch.no_grad()
def tokens_per_second(lm: LanguageModel, length: int, batch: int, repeats: int = FEWEST_REPEATS) -> float:
    """Measure how fast the bare model reads: `(batch, length)` tokens at once, logits of the last one only."""
    ids = _some_ids(lm, batch, length)  # (B, T)
    (times,) = round_robin([lambda: lm.model(input_ids=ids, use_cache=False, logits_to_keep=1)], repeats)
    return batch * length / statistics.median(times)


@torch.no_grad()
def decoded_tokens_per_second(
    lm: LanguageModel, length: int, batch: int, repeats: int = FEWEST_REPEATS, *, steps: int = 16
) -> float:
    """Measure how fast the bare model writes: one token a row and step, around `length` tokens into the context."""
    ids = _some_ids(lm, batch, max(1, length - steps // 2))  # (B, T)
    cache = lm.model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values

    def decode() -> None:
        for _ in range(steps):
            lm.model(input_ids=ids[:, :1], past_key_values=cache, use_cache=True)
        cache.crop(-steps)  # a view: costs nothing, and the next repeat starts at the same length

    (times,) = round_robin([decode], repeats)
    return batch * steps / statistics.median(times)


def _some_ids(lm: LanguageModel, batch: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(lm.vocab_size, (batch, length), generator=generator).to(lm.device)  # (B, T)


def random_llama(
    shape: str = "68m", *, seed: int = 0, device: str = "auto", dtype: str = "auto", **changes: int
) -> LanguageModel:
    """Make a LLaMA-shaped model with random weights and an invented vocabulary.

    Args:
        shape: one of `SHAPES`.
        seed: of the weights.
        device: where to.
        dtype: `auto` is float32 on a CPU, and the fastest exact enough type on an accelerator.
        changes: fields of the config that differ from the shape's.
    """
    from transformers import AutoModelForCausalLM, LlamaConfig

    sizes = SHAPES[shape] | changes
    # 1/sqrt(d) keeps activations near 1, so attention tells tokens apart; the usual 0.02 is far less in a small model.
    spread = sizes["hidden_size"] ** -0.5
    config = LlamaConfig(**sizes, initializer_range=spread, bos_token_id=1, eos_token_id=2, pad_token_id=3)
    target = resolve_device(device)
    kind = resolve_dtype(dtype, target) if dtype != "auto" or target.type != "cpu" else torch.float32
    with torch.random.fork_rng(), torch.device(target):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=kind)
    return LanguageModel(model.to(target), invented_tokenizer(sizes["vocab_size"]), f"llama-{shape}")


def invented_tokenizer(vocab_size: int) -> PreTrainedTokenizerBase:
    """Make a tokenizer of as many ids: four special tokens, and words `w4`, `w5`, ..., each one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *(f"w{number}" for number in range(len(SPECIAL), vocab_size))]
    ids = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), SPECIAL, strict=True))
    made: PreTrainedTokenizerBase = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side="left", model_max_length=2048, **names
    )
    return made


def bench_models(names: str, shape: str, device: str, dtype: str, seed: int) -> Iterator[LanguageModel]:
    """Load the models of a comma-separated list, one after the other."""
    for name in filter(None, (piece.strip() for piece in names.split(","))):
        if name == "random":
            yield random_llama(shape, seed=seed, device=device, dtype=dtype)
        else:
            yield load(name, device, dtype)


def set_up(repeats: int, quick: bool, threads: int, shape: str) -> int:
    """Check the options, set the number of threads, and return the repeats to do.

    Raises:
        typer.BadParameter: too few repeats, or an unknown shape.
    """
    if repeats < FEWEST_REPEATS and not quick:
        raise typer.BadParameter(f"a median of {repeats} says little: give --repeats {FEWEST_REPEATS} or more.")
    if shape not in SHAPES:
        raise typer.BadParameter(f"unknown shape {shape!r}: give {' or '.join(SHAPES)}.")
    if threads:
        torch.set_num_threads(threads)
    return min(repeats, 2) if quick else repeats


def environment() -> dict[str, Any]:
    """What the figures depend on beside the model: processors and versions."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    versions = {name: version(name) for name in ("idp", "torch", "transformers")}
    return {"machine": platform.machine(), "threads": torch.get_num_threads(), **gpu, **versions}


def show(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print one table a model, what the rows' notes say, and what it all ran on."""
    console = console or Console(width=None if sys.stdout.isatty() else WIDTH)
    for model in dict.fromkeys(row.model for row in rows):
        of_model = [row for row in rows if row.model == model]
        first = of_model[0]
        title = f"{model} ({first.device}, {first.dtype})"
        console.print(_table(title, of_model))
        for note in dict.fromkeys(row.note for row in of_model if row.note):
            console.print(f"- {note}", style="dim", highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in environment().items()), style="dim", highlight=False)


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table("work / against", title=title, show_lines=True)
    for header in ("ours\ntheirs", "ratio\nspread", "goal", "floor\nratio there", "max error"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    verdict = {None: "", True: "\nreached", False: "\nmissed"}[row.reached]
    spread = "" if row.spread is None else f"\n{row.spread[0]:.3f}-{row.spread[1]:.3f}"
    floor = "" if row.floor_seconds is None else amount(row.floor_seconds, row.unit)
    return [
        f"{row.work}\n/ {row.against}",
        f"{amount(row.seconds, row.unit)}\n{amount(row.against_seconds, row.unit)}",
        ("-" if row.ratio is None else f"{row.ratio:.3f}") + spread,
        "" if row.goal is None else f"{row.goal:.3f}{verdict}",
        floor if row.floor_ratio is None else f"{floor}\n{row.floor_ratio:.3f}",
        "" if row.max_abs_error is None else f"{row.max_abs_error:.1e}",
    ]


def amount(value: float, unit: str) -> str:
    """Write a figure the way one reads it.

    Example:
        >>> amount(0.0123, "s"), amount(2_500_000, "bytes"), amount(409_600, "parameters")
        ('12.3 ms', '2.50 MB', '409,600')
    """
    if unit == "s":
        return f"{value * 1e3:,.1f} ms" if abs(value) < 1 else f"{value:,.2f} s"
    return f"{value / 1e6:,.2f} MB" if unit == "bytes" else f"{value:,.0f}"


def write(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as a JSON list, each with what it was measured on; the file is replaced in one step."""
    around = environment()
    atomic_write_text(path, json_text([{**asdict(row), "environment": around} for row in rows]))
