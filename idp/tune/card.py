"""The card of a bank: what it is for, how it was made, and what it is known to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import idp
from idp.tune.built import Built
from idp.tune.config import BuildConfig

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
    name = Path(lm.name).name if Path(lm.name).exists() else lm.name  # a folder of this machine says nothing elsewhere
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
            "## Prompts",
            "",
            "| prompt | tokens | init | examples | best step | held-out loss before | after |",
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
        "teacher": "none" if teacher is None else teacher.name,
        "method": config.method,
        "seed": config.seed,
        "made by": f"idp {idp.__version__}; all settings are in config.yaml",
    }
    return [f"- {name}: {value}" for name, value in facts.items()]


def _overlap(found: object) -> str:
    if not isinstance(found, dict):
        return "not checked (--check)"
    return f"{found['found']} of {found['checked']} items, which were left out"


def _losses(built: Built) -> list[str]:
    rows = [f"| {name} | {mean:.3f} |" for name, mean in built.means().items()]
    return ["| chosen by | loss |", "|---|---|", *rows]


def _row(prompt: Prompt) -> str:
    about = prompt.provenance
    tokens: int | str = len(prompt.embedding) if prompt.embedding is not None else "text"
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
