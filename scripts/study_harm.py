"""What selectors do to text that they were not fitted for: the likelihood of how pieces of text go on.

A piece is read, a selector chooses, and what follows is predicted under the prompt it chose, under none, and under the
static one. The reference world's own running text, from its midst, is always among the texts.

    python scripts/study_harm.py brown=brown.txt.xz code=code.txt --json runs/study-harm.json
"""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.cli.errors import guarded
from idp.cli.options import split_names
from idp.cli.quiet import hush
from idp.dynamic.wrap import fitted_selector
from idp.errors import BankError, TaskError
from idp.files import atomic_write_text, json_text
from idp.model.aliases import resolve
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.reference.corpus import epoch_documents
from idp.reference.world import build_world
from idp.run.packing import Request
from idp.run.score import score
from idp.run.store import PrefixStore

READ, FOLLOWS = 150, 110  # characters
UNUSED_EPOCH = 10_000  # worded as no epoch of the training was
SELECTORS = "static,router,router:features=state"


class Harm(NamedTuple):
    """What a selector does to a text.

    Attributes:
        text: its name.
        selector: its name.
        none: mean negative log-likelihood of a token without a prompt, in nats.
        difference: mean of that under the chosen prompts, less `none`.
        error: half of the 95 % interval of the difference.
        no_prompt: share of the pieces that got no prompt.
    """

    text: str
    selector: str
    none: float
    difference: float
    error: float
    no_prompt: float


def named_text(argument: str) -> tuple[str, str]:
    """Read `NAME=FILE`, a text or one compressed by xz.

    Raises:
        TaskError: it has another form, or there is no such file.
    """
    name, equals, path = argument.partition("=")
    if not (name and equals and Path(path).is_file()):
        raise TaskError(f"{argument!r} is not NAME=FILE with a file that is there.")
    if path.endswith(".xz"):
        with lzma.open(path, "rt", encoding="utf-8") as file:
            return name, file.read()
    return name, Path(path).read_text(encoding="utf-8")


def pieces(lm: LanguageModel, text: str, count: int) -> list[Request]:
    """Pieces of a text at equal distances, each with what follows it.

    Raises:
        TaskError: the text is too short for as many.
    """
    step = len(text) // count
    if step < READ + FOLLOWS:
        raise TaskError(f"a text of {len(text):,} characters has no {count} pieces of {READ + FOLLOWS}.")
    found = []
    for start in range(0, count * step, step):
        read, follows = text[start : start + READ], text[start + READ : start + READ + FOLLOWS]
        ids = lm.tokenizer(follows, add_special_tokens=False)["input_ids"]
        found.append(Request(tuple(lm.tokenizer(read)["input_ids"]), (tuple(ids),)))
    return found


def surprise(store: PrefixStore, requests: Sequence[Request], arms: Sequence[int]) -> Tensor:
    """Negative log-likelihood of a token of what follows, `(N,)` in nats."""
    scored = score(store, requests, arms)
    values = [
        -each.scores[0].loglikelihood / len(request.continuations[0])
        for each, request in zip(scored, requests, strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64)


def harm(
    store: PrefixStore, bank: PromptBank, text: tuple[str, str], selectors: Sequence[str], count: int
) -> list[Harm]:
    """Measure all selectors on one text."""
    name, content = text
    requests = pieces(store.lm, content, count)
    bare = surprise(store, requests, [-1] * count)
    rows = []
    for selector in selectors:
        chosen = fitted_selector(selector, bank, store.lm).select_batch([request.context for request in requests])
        arms = [choice.index for choice in chosen]
        more = surprise(store, requests, arms) - bare
        error = 1.96 * float(more.std()) / count**0.5
        rows.append(Harm(name, selector, float(bare.mean()), float(more.mean()), error, arms.count(-1) / count))
    return rows


def show(rows: Sequence[Harm]) -> Table:
    """All rows as a table."""
    table = Table("text", "selector", "no prompt", "more under its prompts", "given no prompt", title="nats a token")
    for row in rows:
        difference = f"{row.difference:+.3f} ± {row.error:.3f}"
        table.add_row(row.text, row.selector, f"{row.none:.2f}", difference, f"{row.no_prompt:.0%}")
    return table


@guarded()
def main(
    texts: Annotated[list[str] | None, typer.Argument(help="NAME=FILE, text or text.xz.")] = None,
    model: Annotated[str, typer.Option(help="The compressed model, one that knows the embedded world.")] = "reference",
    bank: Annotated[str | None, typer.Option(help="Its bank.")] = None,
    selectors: Annotated[str, typer.Option(help="Comma-separated.")] = SELECTORS,
    count: Annotated[int, typer.Option(min=2, help="Pieces of each text.")] = 60,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the rows here.")] = None,
) -> None:
    """Measure, and print a table."""
    hush(False)
    spec = resolve(model)
    if (folder := bank or spec.bank) is None:
        raise BankError(f"no bank is known for {spec.name}: name one (--bank).")
    named = [named_text(argument) for argument in texts or []]
    named.append(("the world's own text", "\n".join(epoch_documents(build_world(0), UNUSED_EPOCH))))
    lm, prompts = load(spec), PromptBank.load(folder)
    prompts.require(lm.fingerprint)
    store = PrefixStore(lm, prompts)
    rows = [row for text in named for row in harm(store, prompts, text, split_names(selectors), count)]
    if json_file is not None:
        content: list[dict[str, Any]] = [row._asdict() for row in rows]
        atomic_write_text(json_file, json_text(content))
    Console().print(show(rows))


if __name__ == "__main__":
    typer.run(main)
