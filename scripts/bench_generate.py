"""What it costs to choose a prompt for every request, beside one static prompt, no prompt, and LoRA.

    python scripts/bench_generate.py --json runs/generate.json
    python scripts/bench_generate.py --models random --shape 7b --device cuda

Prompts are compiled beforehand on both sides, requests are token ids, and all sides generate the same number of tokens.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import benchmarking as bench
import torch
import typer
from bench_subjects import PROMPTS, RANK, Call, Subjects, plan_for
from benchmarking import Row, Timing, alternate, compare, round_robin
from torch import nn
from torch.profiler import ProfilerActivity, profile

from idp.cli.errors import guarded
from idp.cli.progress import progress
from idp.cli.quiet import hush
from idp.dynamic.model import DynamicPromptModel
from idp.run.prefix import compile_prefix

SLOWER = 1 / 1.02  # goals: at most 2 % more time, at most 5 % more memory
SHARE = 50  # the same 2 % as a part of the whole
LARGER = 1 / 1.05
LORA = f"unmerged LoRA, rank {RANK} on q, k, v, o"
CLAIM_TIME = "the paper (arXiv 2310.00867) claims 60 % less latency than LoRA, which would be a ratio of 2.5"
CLAIM_SIZE = "the paper (arXiv 2310.00867) claims 21 times fewer parameters than LoRA"
ROBINS = 8  # timings of a model: 3 at batch 1, 4 at the large batch, and the cold start


@dataclass(frozen=True, eq=False)
class Course:
    """One batch size, and everything that is measured with it.

    Attributes:
        subjects: the models.
        calls: what is generated for in one repeat, one after the other.
        advance: told of every repeat.
    """

    subjects: Subjects
    calls: list[Call]
    advance: Callable[[], object]

    @property
    def batch(self) -> int:
        """The batch size."""
        return len(self.calls[0].ids)

    @property
    def work(self) -> str:
        """What is measured, in words."""
        new, chooser = self.subjects.plan.new_tokens, self.subjects.chooser
        return f"{chooser}, bank of {PROMPTS}, batch {self.batch}, {new} new tokens"

    @property
    def note(self) -> str:
        """How much the choices differed."""
        distinct = len({choice for call in self.calls for choice in call.choices})
        first_logits = "the static prompt's" if self.batch == 1 else "those of each row alone"
        return (
            f"batch {self.batch}: it chose {distinct} different prompts in {len(self.calls)} call(s) of up to "
            f"{self.subjects.plan.tokens} tokens; times are of one call; max error: first logits against {first_logits}"
        )

    @cached_property
    def floor_seconds(self) -> float:
        """Tokens to read and to write in one call, each at the bare model's own speed at this batch size."""
        plan, lm = self.subjects.plan, self.subjects.lm
        context = statistics.mean(plan.lengths) + plan.tokens + plan.new_tokens / 2
        reading = bench.tokens_per_second(lm, plan.tokens, self.batch, plan.repeats)
        writing = bench.decoded_tokens_per_second(lm, int(context), self.batch, plan.repeats)
        tokens = statistics.mean(call.tokens for call in self.calls)
        return tokens / reading + self.batch * (plan.new_tokens - 1) / writing  # reading gives the first new token

    def rows(self) -> list[Row]:
        """All comparisons of time at this batch size."""
        against_static = [self.static_row()]
        if self.batch > 1:
            against_static.append(self.mean_row())
        return [*against_static, self.share_row(), *self.other_rows()]

    def static_row(self) -> Row:
        """Against the static prompt that is as long as the longest chosen one."""
        statics = [self.subjects.static(self.subjects.longest(call)) for call in self.calls]
        ours, theirs = self.times(self.everywhere(self.subjects.router), statics)
        alone = self.batch == 1
        which = "one static cached prompt of the same length" if alone else "one static cached prompt, the longest"
        error = self.same_error(statics) if alone else self.alone_error()
        return self.row(which, Timing(ours, theirs), goal=SLOWER, max_abs_error=error)

    def mean_row(self) -> Row:
        """Against a static prompt of the mean length of the chosen ones, which a mixed batch is padded beyond."""
        choices = [choice for call in self.calls for choice in call.choices]
        length = round(statistics.mean(self.subjects.plan.lengths[choice] for choice in choices))
        static = self.subjects.static_of_length(length)
        timing = Timing(*self.times(*map(self.everywhere, (self.subjects.router, static))))
        return self.row(f"one static cached prompt of the mean length, {length}", timing)

    def share_row(self) -> Row:
        """What choosing and assembling take alone: clearer than the difference of two whole calls, which vary more."""
        parts = self.subjects.prepare(self.calls)
        whole = self.subjects.run(self.everywhere(self.subjects.router), self.calls)
        ours, theirs = self.per_call([parts, whole])
        work = f"choosing and assembling alone, batch {self.batch}"
        against = f"the whole call, {self.subjects.plan.new_tokens} new tokens"
        return compare(self.subjects.lm, work, against, Timing(ours, theirs), goal=SHARE)

    def other_rows(self) -> list[Row]:
        """Against no prompt and against LoRA, all three in turn, and what each adds to no prompt."""
        models = (self.subjects.router, self.subjects.lm.model, self.subjects.lora)
        ours, bare, lora = self.times(*map(self.everywhere, models))
        return [
            self.row("the bare model, same text", Timing(ours, bare)),
            self.row(LORA, Timing(ours, lora)),
            self.added_row(minus(ours, bare), minus(lora, bare)),
        ]

    def added_row(self, ours: list[float], lora: list[float]) -> Row:
        """What we and LoRA take beyond the bare model; within the noise there is no ratio to state."""
        mine, theirs = statistics.median(ours), statistics.median(lora)
        clear = min(*ours, *lora) > 0
        doubt = "" if clear else "; a difference was not above 0 in every repeat, so no ratio is stated"
        of_repeats = [b / a for a, b in zip(ours, lora, strict=True)] if clear else []
        return Row(
            model=self.subjects.lm.name,
            work=f"time added to the bare model by the {self.work}",
            against=f"time added by {LORA}",
            ratio=statistics.median(of_repeats) if clear else None,
            floor_ratio=None,
            max_abs_error=None,
            goal=None,
            seconds=mine,
            against_seconds=theirs,
            spread=(min(of_repeats), max(of_repeats)) if clear else None,
            note=f"added time, batch {self.batch}: {CLAIM_TIME}{doubt}",
            repeats=len(ours),
            **bench.ran_on(self.subjects.lm),
        )

    def row(self, against: str, timing: Timing, **more: Any) -> Row:
        """One comparison of whole calls."""
        facts: dict[str, Any] = {"floor_seconds": self.floor_seconds, "note": self.note} | more
        return compare(self.subjects.lm, self.work, against, timing, **facts)

    def times(self, *sides: Sequence[Any]) -> list[tuple[float, ...]]:
        """Seconds a call of each side, which is one model a call."""
        return self.per_call([self.subjects.run(models, self.calls) for models in sides])

    def per_call(self, runs: Sequence[Callable[[], object]]) -> list[tuple[float, ...]]:
        """Seconds a call of each run of all calls."""
        spent = round_robin(runs, self.subjects.plan.repeats, self.advance)
        return [tuple(seconds / len(self.calls) for seconds in side) for side in spent]

    def everywhere(self, model: Any) -> list[Any]:
        """The same model for every call."""
        return [model] * len(self.calls)

    def same_error(self, statics: Sequence[DynamicPromptModel]) -> float:
        """Largest difference of the first logits from those under the same prompt, chosen statically."""
        first = self.subjects.first_logits
        pairs = zip(statics, self.calls, strict=True)
        return max(float((first(self.subjects.router, call) - first(model, call)).abs().max()) for model, call in pairs)

    def alone_error(self) -> float:
        """Largest difference of the first logits of a row of the batch from those of the row alone."""
        first, router = self.subjects.first_logits, self.subjects.router
        call = self.calls[0]
        alone = torch.cat([first(router, row) for row in call.alone()])  # (B, V)
        return float((first(router, call) - alone).abs().max())


def minus(side: Sequence[float], bare: Sequence[float]) -> list[float]:
    """Differences of each repeat."""
    return [one - other for one, other in zip(side, bare, strict=True)]


def cold_row(subjects: Subjects, advance: Callable[[], object]) -> Row:
    """What the first request with a prompt pays: compiling it, beside reading as many tokens."""
    lm, repeats = subjects.lm, subjects.plan.repeats
    prompt = max(subjects.bank, key=lambda prompt: 0 if prompt.embedding is None else len(prompt.embedding))
    ids = torch.arange(max(subjects.plan.lengths), device=lm.device)[None] % lm.vocab_size  # (1, n)

    def read() -> None:
        with torch.no_grad():
            lm.model(input_ids=ids, use_cache=True, logits_to_keep=1)

    timing = alternate(lambda: compile_prefix(lm, prompt), read, repeats, advance)
    floor = ids.shape[1] / bench.tokens_per_second(lm, ids.shape[1], 1, repeats)
    work = f"cold start: compiling a prompt of {ids.shape[1]} tokens"
    note = "the cold start is paid once, by the first request with a prompt, or beforehand"
    return compare(lm, work, "reading as many tokens", timing, floor_seconds=floor, note=note)


def size_rows(subjects: Subjects) -> list[Row]:
    """Parameters of prompts and router beside those of LoRA."""
    adapters = sum(value.numel() for name, value in subjects.lora.named_parameters() if "lora_" in name)
    sizes = [prompt.embedding.numel() for prompt in subjects.bank if prompt.embedding is not None]
    router = sum(tensor.numel() for tensor in subjects.selector.state().tensors.values())
    longest = max(subjects.plan.lengths)
    return [
        counted(subjects, f"one prompt of {longest} tokens", LORA, max(sizes), adapters, "parameters", CLAIM_SIZE),
        counted(subjects, f"{PROMPTS} prompts and the router", LORA, sum(sizes) + router, adapters, "parameters"),
    ]


def memory_rows(subjects: Subjects) -> list[Row]:
    """Peak memory of a mixed batch beside the same batch under its longest prompt."""
    longest = subjects.longest(subjects.batch)
    static = subjects.static(longest)
    peaks = [
        peak_bytes(subjects.run([model], [subjects.batch]), subjects.lm.device) for model in (subjects.router, static)
    ]
    weights = bytes_of(subjects.lm.model)
    kept = [kept_bytes(subjects.router, range(PROMPTS)), kept_bytes(static, [longest])]
    whole = [weights + stored + peak for stored, peak in zip(kept, peaks, strict=True)]
    work, against = f"peak memory, mixed batch {len(subjects.batch.ids)}", "static prompt, the longest"
    note = "peak memory: bytes of all tensors alive at once, as the allocator reports them, above those before the call"
    more = f"{work}, with weights and compiled prompts"
    return [
        counted(subjects, work, against, peaks[0], peaks[1], "bytes", note, LARGER),
        counted(subjects, more, f"{against}, with weights and its prompt", whole[0], whole[1], "bytes", goal=LARGER),
    ]


def counted(
    subjects: Subjects,
    work: str,
    against: str,
    ours: int,
    theirs: int,
    unit: str,
    note: str = "",
    goal: float | None = None,
) -> Row:
    """A row of things that are counted, not timed."""
    ran = {"unit": unit, "note": note, **bench.ran_on(subjects.lm)}
    return Row(subjects.lm.name, work, against, theirs / ours, None, None, goal, ours, theirs, None, **ran)


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Most bytes alive at once during a call, beyond those alive before it.

    On the CPU the resident size of a process depends on what the allocator kept back, so every allocation and release
    that torch reports is added up instead, temporaries within an operation included: the same call, the same number.
    """
    call()  # what is made once is not part of it
    gc.collect()
    if device.type == "cuda":
        return _cuda_peak_bytes(call, device)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()  # negative for a release
        peak = max(peak, alive)
    return peak


def _cuda_peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def bytes_of(model: nn.Module) -> int:
    """Bytes of weights and buffers."""
    return sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])


def kept_bytes(model: DynamicPromptModel, indices: Sequence[int]) -> int:
    """Bytes of compiled prompts."""
    prefixes = [prefix for index in indices if (prefix := model.store[index]) is not None]
    return sum(part.nbytes for prefix in prefixes for layer in prefix.layers for part in layer)


def measure(subjects: Subjects, advance: Callable[[], object]) -> list[Row]:
    """All rows of one model."""
    courses = [Course(subjects, calls, advance) for calls in (subjects.singles, [subjects.batch])]
    timed = [row for course in courses for row in course.rows()]
    return [*timed, cold_row(subjects, advance), *size_rows(subjects), *memory_rows(subjects)]


@guarded()
def main(
    repeats: bench.Repeats = bench.FEWEST_REPEATS,
    threads: bench.Threads = 0,
    models: bench.Models = "reference,random",
    shape: bench.Shape = "68m",
    tokens: bench.Tokens = 0,
    new_tokens: bench.NewTokens = 0,
    json_file: bench.JsonFile = None,
    device: bench.Device = "auto",
    dtype: bench.DType = "auto",
    seed: bench.Seed = 0,
    quick: bench.Quick = False,
    selector: Annotated[str, typer.Option(help="What chooses.")] = "router",
) -> None:
    """Measure what choosing a prompt for every request costs."""
    hush(debug=False)
    repeats = bench.set_up(repeats, quick, threads, shape)
    rows: list[Row] = []
    with progress() as observer:
        for lm in bench.bench_models(models, shape, device, dtype, seed):
            plan = plan_for(lm, tokens, new_tokens, repeats, seed, quick)
            observer.stage(lm.name, ROBINS * repeats)
            rows += measure(Subjects(lm, plan, selector), lambda: observer.advance(1))
    bench.show(rows)
    if json_file is not None:
        bench.write(rows, json_file)


if __name__ == "__main__":
    typer.run(main)
