"""The card of a bank: what it is for, how it was made, and what it is known to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import idp
from idp.files import public_name
from idp.tune.built import Built
from idp.tune.config import BuildConfig
from idp.tune.parts import Round

if TYPE_CHECKING:
    from idp.bank.prompt import Prompt
    from idp.model.loaded import LanguageModel

__all__ = ["bank_card"]


def bank_card(built: Built, config: BuildConfig, lm: LanguageModel, teacher: LanguageModel | None) -> str:
    """Fill in the card, in Markdown with the front matter that hubs read.

    Args:
        built: the bank and how it came about.
        config: how it was built.
        lm: the model it is for.
        teacher: the dense model, where there was one.
    """
    name = public_name(lm.name)
    return "\n".join(
        [
            "---",
            "library_name: idp",
            "tags: [prompt-tuning, model-compression, idp]",
            "---",
            "",
            f"# Prompts for {name}",
            "",
            f"{_what(built)} `{name}`: {lm.fingerprint.describe()}; no other model.",
            "",
            "```sh",
            f"idp eval --model {name} --bank THIS_FOLDER",
            "```",
            "",
            "## How it was made",
            "",
            *_facts(built, config, teacher),
            "",
            "## On held-out examples",
            "",
            "Mean probability of being wrong (of running text 1 - exp(mean log-likelihood of a token)), on examples",
            "that no prompt was tuned on. They also chose the best step of each prompt and fitted the selectors: an",
            "evaluation on data of its own is what tells how good the bank is.",
            "",
            *_losses(built),
            "",
            *_rounds(built),
            "## Prompts",
            "",
            "| prompt | tokens | init | examples | best step | held-out loss before its last round | after |",
            "|---|---|---|---|---|---|---|",
            *(_row(prompt) for prompt in built.bank),
            "",
        ]
    )


def _what(built: Built) -> str:
    one = len(built.bank) == 1
    return "One prompt that repairs" if one else f"{len(built.bank)} prompts, one chosen per input, that repair"


def _facts(built: Built, config: BuildConfig, teacher: LanguageModel | None) -> list[str]:
    about = built.bank.provenance
    sources = ", ".join(f"{name} ({count:,})" for name, count in about.get("sources", {}).items())
    facts = {
        "data": f"{sources}; {about.get('tuning', 0):,} examples to tune on, {about.get('held_out', 0):,} held out",
        "overlap with evaluation items": _overlap(about.get("overlap")),
        "objective": about.get("objective", ""),
        "teacher": "none" if teacher is None else public_name(teacher.name),
        "method": config.method,
        "seed": config.seed,
        "made by": f"idp {idp.__version__}; all settings are in config.yaml",
    }
    return [f"- {name}: {value}" for name, value in facts.items()]


def _overlap(found: object) -> str:
    if not isinstance(found, dict):
        return "not checked (--check)"
    shared = f"{found['found']:,} of {found['checked']:,} items share 13 words with one"
    return f"{shared}: {found['kept']}" if "kept" in found else f"{shared}, and were left out"


def _losses(built: Built) -> list[str]:
    rows = [f"| {name} | {mean:.3f} |" for name, mean in built.means().items()]
    return ["| chosen by | loss |", "|---|---|", *rows]


def _rounds(built: Built) -> list[str]:
    """What every round came to, and how many prompts were needed in the end."""
    if built.parts is None or built.pruned is None:
        return []
    path = ", ".join(f"{count}: {loss:.3f}" for count, loss in built.pruned.path)
    return [
        "Rounds of tuning a prompt for each part, judged on a sample of these examples:",
        "",
        f"| round | parts | examples of a part | {' | '.join(built.parts.rounds[0].held_out)} |",
        "|---" * (3 + len(built.parts.rounds[0].held_out)) + "|",
        *(_round(number, each) for number, each in enumerate(built.parts.rounds, start=1)),
        "",
        f"Loss under the prompt of the own part, by number of prompts: {path}.",
        "",
    ]


def _round(number: int, each: Round) -> str:
    losses = " | ".join(f"{loss:.3f}" for loss in each.held_out.values())
    return f"| {number} | {len(each.counts)} | {min(each.counts)} to {max(each.counts)} | {losses} |"


def _row(prompt: Prompt) -> str:
    about = prompt.provenance
    tokens: int | str = prompt.shape[0] if prompt.shape is not None else "text"
    cells: Sequence[object] = [
        prompt.name,
        tokens,
        about.get("init", ""),
        about.get("examples", ""),
        about.get("best_step", ""),
        about.get("held_out_loss_at_start", ""),
        about.get("held_out_loss", ""),
    ]
    return f"| {' | '.join(str(cell) for cell in cells)} |"
