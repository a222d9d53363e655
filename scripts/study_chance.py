"""How much of the best prompt is chance: what is known of it once every prompt was run on the same fact in other words.

A fact of the reference world is asked in three wordings, with the same options. For one of them a prompt is chosen by
the losses of all prompts on the others, which needs the right answer. What this leaves is chance of the single wording.

    python scripts/study_chance.py --model reference --out runs/study-chance
    python scripts/study_chance.py --model reference --out runs/study-chance --split unseen

Of facts that the model never read nothing can be recalled: what is covered there is the answer, told by the choice of
a prompt. No evaluation fact is used; what is measured is kept in the folder.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.cli.errors import guarded
from idp.cli.quiet import hush
from idp.errors import BankError, TaskError
from idp.evaluate.regret import Choices, Outcomes, regrets
from idp.files import atomic_write_text, json_text
from idp.model.aliases import resolve
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.reference.atlas import stable_hash
from idp.reference.exams import options
from idp.reference.wording import ask, question
from idp.reference.world import SHARES, Fact, Split, World, build_world
from idp.select.base import Cost
from idp.tune.atlas import HELD_OUT
from idp.tune.examples import Example, encode
from idp.tune.losses import kept_losses

COST = Cost(0.0, 0, True, False)


def asked_facts(world: World, split: Split, count: int, seed: int) -> list[Fact]:
    """Facts with three wordings that prompts were not tuned on: of held-out tuning subjects, or of another set."""
    facts = world.by_split[split]
    if split == "tuning":
        facts = tuple(fact for fact in facts if stable_hash(str(seed), fact.subject) % HELD_OUT == 0)
    found = [fact for fact in facts if len(world.relation(fact).questions) == 3]
    return random.Random(seed).sample(found, min(count, len(found)))


def in_all_words(lm: LanguageModel, world: World, facts: list[Fact], wording: int, seed: int) -> list[Example]:
    """Every fact asked in one wording; the options are those of the other wordings."""
    found = []
    for fact in facts:
        choices, answer = options(world, fact, 4, random.Random(f"{seed}-{fact.relation}-{fact.subject}"))
        text = ask(question(fact, world.relation(fact), wording))
        found.append(encode(lm, text, [f" {choice}" for choice in choices], answer, "question"))
    return found


def chosen(losses: list[Tensor], target: int) -> dict[str, Tensor]:
    """Arms by what is known beside the target wording, `(N,)` each."""
    others = [table for place, table in enumerate(losses) if place != target]
    return {
        "static": losses[target].argmin(dim=1) * 0,
        "the best arm of one other wording": others[0].argmin(dim=1),
        "the best arm of both other wordings": (others[0] + others[1]).argmin(dim=1),
    }


def _split(name: str) -> Split:
    found: Split | None = next((split for split in SHARES if split == name and split != "evaluation"), None)
    if found is None:
        raise TaskError(f"facts are asked of tuning or of unseen, not of {name!r}.")
    return found


@guarded()
def main(
    model: Annotated[str, typer.Option(help="The compressed model, one that knows the embedded world.")] = "reference",
    bank: Annotated[str | None, typer.Option(help="Its bank, whose first prompt is the static one.")] = None,
    split: Annotated[str, typer.Option(help="tuning, or unseen: facts that the model never read.")] = "tuning",
    facts: Annotated[int, typer.Option(help="How many facts.")] = 1000,
    out: Annotated[Path, typer.Option(help="Folder of what is measured.")] = Path("runs/study-chance"),
) -> None:
    """Measure, choose, and print a table."""
    hush(False)
    spec = resolve(model)
    if (folder := bank or spec.bank) is None:
        raise BankError(f"no bank is known for {spec.name}: name one (--bank).")
    lm, prompts, world = load(spec), PromptBank.load(folder), build_world(0)
    prompts.require(lm.fingerprint)
    asked = asked_facts(world, _split(split), facts, 0)
    losses = [
        kept_losses(lm, list(prompts), in_all_words(lm, world, asked, wording, 0), out / "losses")
        for wording in range(3)
    ]
    arms = [chosen(losses, target) for target in range(3)]
    tables = {f"wording {target}": losses[target].numpy() for target in range(3)}
    rows = regrets(
        Outcomes((*prompts.names, "no prompt"), tables, {}),
        [
            Choices(name, {f"wording {target}": np.asarray(arms[target][name]) for target in range(3)}, COST, 0.0, 0.0)
            for name in arms[0]
        ],
    )
    table = Table(
        "known", "loss", "covered", "95 %", title=f"{spec.name}, {len(asked):,} {split} facts in three wordings"
    )
    for row in rows:
        share = row.covered
        table.add_row(row.name, f"{row.loss:.4f}", f"{share.value:.1%}", f"[{share.low:.1%}, {share.high:.1%}]")
    atomic_write_text(out / f"{split}.json", json_text([row.to_dict() for row in rows]))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
