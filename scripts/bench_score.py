"""Measure scoring: log-likelihoods of options, against what lm-eval's own `hf` model needs for the same.

Both sides answer the same requests in one run, in alternation; `hf` gets the batch size that is best for it. With a
prompt, `hf` runs a PEFT prompt-tuning adapter that holds the very same prompt.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import typer
from benchmarking import (
    Device,
    DType,
    JsonFile,
    Models,
    Quick,
    Repeats,
    Row,
    Seed,
    Shape,
    Threads,
    Timing,
    bench_models,
    compare,
    round_robin,
    set_up,
    show,
    tokens_per_second,
    write,
)
from rich.progress import Progress

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.evaluate import IdpLM
from idp.evaluate.lm import PairRequest
from idp.evaluate.memo import Memo
from idp.evaluate.oracle import FixedSelector
from idp.model.loaded import LanguageModel
from idp.run import ways
from idp.run.packing import Request
from idp.run.score import score
from idp.run.store import PrefixStore

BATCH_SIZES = (2, 4, 8, 16, 32, 64)
PROMPT_TOKENS = 100


@dataclass(frozen=True)
class Work:
    """Questions to be scored.

    Attributes:
        name: what they are called in the table.
        options: options of a question.
        context: fewest and most tokens of a context.
        option: fewest and most tokens of an option.
        prompt: tokens of the prompt in front, 0 for none.
        goal: the least ratio wanted.
        vocabulary: fewest tokens a model must know for that to be its goal.
    """

    name: str
    options: int
    context: tuple[int, int]
    option: tuple[int, int]
    prompt: int
    goal: float
    vocabulary: int = 0


WORKS = (
    Work("four options", 4, (64, 128), (8, 24), 0, 4.0, 32_000),
    Work("four options, 100-token prompt", 4, (64, 128), (8, 24), PROMPT_TOKENS, 8.0, 32_000),
    Work("two options, short contexts", 2, (8, 24), (2, 4), 0, 1.0),
    Work("two options of one token, short contexts", 2, (8, 24), (1, 1), 0, 1.0),
)


class Side(NamedTuple):
    """One way to answer: what runs it, and its log-likelihoods, option by option."""

    run: Callable[[], object]
    answers: Callable[[], list[float]]


def questions(work: Work, count: int, vocab_size: int, seed: int) -> list[Request]:
    """Draw questions of random tokens."""
    rng = random.Random(f"{seed}-{work.name}")

    def tokens(shortest: int, longest: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, vocab_size) for _ in range(rng.randint(shortest, longest)))

    return [
        Request(tokens(*work.context), tuple(tokens(*work.option) for _ in range(work.options))) for _ in range(count)
    ]


def pairs(requests: Sequence[Request]) -> list[PairRequest]:
    """The same questions as lm-eval asks them, an option at a time."""
    return [
        ((f"question {number}", f"option {place}"), list(request.context), list(option))
        for number, request in enumerate(requests)
        for place, option in enumerate(request.continuations)
    ]


def bank_of(lm: LanguageModel, tokens: int, seed: int) -> PromptBank | None:
    """One soft prompt made of embeddings of the model's own vocabulary; None for no tokens."""
    if not tokens:
        return None
    ids = torch.randint(lm.vocab_size, (tokens,), generator=torch.Generator().manual_seed(seed))
    return PromptBank([Prompt("prompt", embedding=lm.embed(ids).float().cpu())])


def hf_model(lm: LanguageModel, bank: PromptBank | None) -> Any:
    """lm-eval's own model, with the prompt as a PEFT adapter."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=lm.model if bank is None else with_adapter(lm, bank), tokenizer=lm.tokenizer, batch_size=1)


def with_adapter(lm: LanguageModel, bank: PromptBank) -> Any:
    """The model with a PEFT prompt-tuning adapter whose prompt is the bank's."""
    from peft import PromptTuningConfig, TaskType, get_peft_model

    embedding = bank[0].embedding
    assert embedding is not None  # noqa: S101  (the bank is ours)
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=len(embedding))
    adapted = get_peft_model(lm.model, config)
    weight = adapted.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(embedding.to(weight))
    return adapted.eval()


def best_batch_size(hf: Any, asked: list[Any]) -> int:
    """The batch size with which `hf` answers quickest, by a part of the work of at least two of the largest."""
    some = asked[: max(2 * BATCH_SIZES[-1], len(asked) // 2)]
    seconds: dict[int, float] = {}
    for size in BATCH_SIZES:
        hf.batch_size_per_gpu = size
        begun = time.perf_counter()
        hf._loglikelihood_tokens(some, disable_tqdm=True)
        seconds[size] = time.perf_counter() - begun
        if seconds[size] > 1.3 * min(seconds.values()):
            break  # larger ones only get slower
    return min(seconds, key=lambda size: seconds[size])


def hf_side(lm: LanguageModel, bank: PromptBank | None, requests: list[Request]) -> Side:
    """What users have."""
    hf, asked = hf_model(lm, bank), pairs(requests)
    hf.batch_size_per_gpu = best_batch_size(hf, asked)

    def run() -> Any:
        return hf._loglikelihood_tokens(asked, disable_tqdm=True)

    return Side(run, lambda: [value for value, _ in run()])


def idp_side(lm: LanguageModel, bank: PromptBank | None, requests: list[Request]) -> Side:
    """The run layer, its batch size found automatically."""
    store = PrefixStore(lm, bank)
    choices = [-1 if bank is None else 0] * len(requests)
    return Side(
        lambda: score(store, requests, choices),
        lambda: [s.loglikelihood for row in score(store, requests, choices) for s in row.scores],
    )


def lm_eval_side(lm: LanguageModel, bank: PromptBank | None, requests: list[Request]) -> Side:
    """The lm-eval model, which also chooses the prompt, groups the options, and keeps answers (none from before)."""
    selector = "none" if bank is None else FixedSelector(0).fit(bank, lm)
    model, asked = IdpLM(lm, bank, selector, batch_size="auto"), pairs(requests)

    def run() -> list[tuple[float, bool]]:
        model.memo, model._selections = Memo(None, ""), {}
        return model._loglikelihood_tokens(asked, disable_tqdm=True)

    return Side(run, lambda: [value for value, _ in run()])


def expanded_side(lm: LanguageModel, bank: PromptBank | None, requests: list[Request]) -> Side:
    """The run layer with copies of the context's keys and values instead of a mask."""
    inner = idp_side(lm, bank, requests)
    ways.way_of(lm)  # found out before another way takes its place

    def expanded(call: Callable[[], Any]) -> Any:
        kept = ways.PASSES["packed"]
        ways.PASSES["packed"] = ways.PASSES["expanded"]
        try:
            return call()
        finally:
            ways.PASSES["packed"] = kept

    return Side(lambda: expanded(inner.run), lambda: expanded(inner.answers))


@torch.no_grad()
def floor_of(lm: LanguageModel, requests: Sequence[Request]) -> float:
    """Seconds for what must be computed: each context once, each option once, logits where a token is predicted."""
    tokens = sum(request.packed_length for request in requests)
    positions = sum(request.packed_length - len(request.context) + 1 for request in requests)
    length = max(8, tokens // len(requests))
    rate = tokens_per_second(lm, length, max(1, 2048 // length))
    head = lm.model.get_output_embeddings()
    states = torch.randn(512, head.weight.shape[-1], device=lm.device, dtype=lm.dtype)
    (times,) = round_robin([lambda: head(states)], 5)
    return tokens / rate + positions * statistics.median(times) / len(states)


def rows_of(
    lm: LanguageModel, work: Work, count: int, repeats: int, seed: int, progress: Callable[[], object]
) -> list[Row]:
    """Measure one kind of work in all ways, in turn."""
    requests = questions(work, count, lm.vocab_size, seed)
    bank = bank_of(lm, work.prompt, seed)
    makers = (hf_side, idp_side, lm_eval_side, *((expanded_side,) if work.options > 2 else ()))
    sides = [make(lm, bank, requests) for make in makers]
    theirs, *ours = (side.answers() for side in sides)
    error = max(abs(a - b) for answers in ours for a, b in zip(answers, theirs, strict=True))
    hf, score_seconds, lm_seconds, *expanded = round_robin([side.run for side in sides], repeats, progress)
    floor = floor_of(lm, requests)
    rival = "lm-eval hf" + (" with a PEFT prompt" if bank else "")
    goal = work.goal if lm.vocab_size >= work.vocabulary else None
    known: dict[str, Any] = {"floor_seconds": floor, "max_abs_error": error, "goal": goal}
    note = f"{work.name}: {count} questions; hf at its best batch size, idp at the one it finds"
    rows = [
        compare(lm, f"{work.name}: score", rival, Timing(score_seconds, hf), **known, note=note),
        compare(lm, f"{work.name}: lm-eval model idp", rival, Timing(lm_seconds, hf), **known),
    ]
    for seconds in expanded:
        mask = f"{work.name}: score, tree mask"
        rows.append(compare(lm, mask, "score, expanded cache", Timing(score_seconds, seconds), floor_seconds=floor))
    return rows


def main(
    models: Models = "reference,random",
    shape: Shape = "68m",
    repeats: Repeats = 5,
    only: str = typer.Option("", help="Only the kinds of work with these words in their name."),
    items: int = typer.Option(48, min=1, help="Questions of each kind."),
    threads: Threads = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    seed: Seed = 0,
    json: JsonFile = None,
    quick: Quick = False,
) -> None:
    """Measure, print the table, and write the rows."""
    repeats = set_up(repeats, quick, threads, shape)
    rows: list[Row] = []
    with Progress(transient=True) as bar:
        for lm in bench_models(models, shape, device, dtype, seed):
            for work in (work for work in WORKS if only in work.name):
                task = bar.add_task(f"{lm.name}: {work.name}", total=repeats)
                count = 2 if quick else items

                def advance(task: Any = task) -> None:
                    bar.advance(task)

                rows += rows_of(lm, work, count, repeats, seed, advance)
    show(rows)
    if json is not None:
        write(rows, json)


if __name__ == "__main__":
    typer.run(main)
