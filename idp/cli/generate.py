"""`idp generate`: continue texts, and say which prompt was chosen for each."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idp.cli.errors import guarded
from idp.cli.options import (
    DEFAULT_MODEL,
    AllowMismatch,
    AllowPickle,
    Bank,
    Debug,
    Device,
    DType,
    Json,
    Model,
    Seed,
    SelectorName,
    TrustRemoteCode,
)
from idp.cli.quiet import hush
from idp.errors import PromptTooLongError

if TYPE_CHECKING:
    from idp.dynamic.model import DynamicPromptModel


@guarded()
def generate_command(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="Texts to continue; - reads one from stdin.")],
    model: Model = DEFAULT_MODEL,
    bank: Bank = None,
    selector: SelectorName = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n", min=1, help="Tokens to add at most.")] = 32,
    sample: Annotated[bool, typer.Option("--sample", help="Draw tokens instead of taking the likeliest.")] = False,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=1e-3, help="How evenly to draw; draws even without --sample.")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Each text is what a user says: write it with the model's chat template.")
    ] = False,
    device: Device = "auto",
    dtype: DType = "auto",
    seed: Seed = 0,
    allow_mismatch: AllowMismatch = False,
    allow_pickle: AllowPickle = False,
    trust_remote_code: TrustRemoteCode = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Continue texts with a compressed model, each under the prompt chosen for it."""
    hush(debug)
    from idp.cli.progress import progress
    from idp.cli.prompted import load_prompted, read_text
    from idp.model.aliases import resolve

    inputs = [read_text(text) for text in texts]
    with progress(debug) as observer:
        spec = resolve(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
        prompted = load_prompted(observer, spec, bank, selector, device, dtype, seed, allow_mismatch)
        observer.stage("generating", None)
        answers = _generate(prompted, inputs, chat, max_new_tokens, _sampling(sample, temperature), seed)
    rows = [_row(prompted, *pair, number) for number, pair in enumerate(zip(inputs, answers, strict=True))]
    if json:
        _print_json(rows)
    else:
        _print_answers(rows, between="\n" if chat else "")


def _sampling(sample: bool, temperature: float | None) -> dict[str, Any]:
    if sample or temperature is not None:
        return {"do_sample": True} | ({} if temperature is None else {"temperature": temperature})
    # A model may come with sampling settings, which a greedy run would warn about.
    return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


def _generate(
    prompted: DynamicPromptModel, texts: list[str], chat: bool, max_new_tokens: int, sampling: dict[str, Any], seed: int
) -> list[str]:
    import torch

    settings = {"max_new_tokens": max_new_tokens, **sampling}
    _check_lengths(prompted, texts, max_new_tokens)
    with torch.random.fork_rng():  # transformers draws from the global generator, which is given back as it was
        torch.manual_seed(seed)
        if chat:
            return prompted.generate_chat([[{"role": "user", "content": text}] for text in texts], **settings)
        return prompted.generate_text(texts, **settings)


def _check_lengths(prompted: DynamicPromptModel, texts: list[str], new: int) -> None:
    """Say early which text is too long by itself; with its prompt the library does."""
    limit = prompted.lm.max_length
    for number, text in enumerate(texts, start=1):
        length = len(prompted.tokenizer(text)["input_ids"])
        if length + new > limit:
            raise PromptTooLongError(
                f"text {number} does not fit: {length} tokens and {new} new ones make {length + new}, but the context "
                f"of {prompted.lm.name} holds {limit}. Shorten the text or lower --max-new-tokens."
            )


def _row(prompted: DynamicPromptModel, text: str, answer: str, number: int) -> dict[str, Any]:
    from idp.cli.prompted import finite, named_scores

    chosen = prompted.last_selections[number]
    scores = {name or "none": finite(score) for name, score in named_scores(prompted, chosen, None)}
    return {
        "text": text,
        "answer": answer,
        "prompt": None if prompted.bank is None or chosen.index == -1 else prompted.bank[chosen.index].name,
        "score": finite(chosen.score),
        "scores": scores,
        "selector": (prompted.selector.spec or prompted.selector.name) if prompted.selector else "none",
    }


def _print_json(rows: list[dict[str, Any]]) -> None:
    typer.echo(jsonlib.dumps(rows, indent=2, ensure_ascii=False))


def _print_answers(rows: list[dict[str, Any]], between: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for row in rows:
        console.print(Text.assemble((row["text"], "dim"), between, (row["answer"], "bold")), soft_wrap=True)
        prompt = "no prompt" if row["prompt"] is None else f"prompt {row['prompt']}"
        score = "" if row["score"] is None else f" · score {row['score']:.3f}"
        console.print(Text(f"└ {prompt}{score} · chosen by {row['selector']}\n", style="cyan"), soft_wrap=True)
