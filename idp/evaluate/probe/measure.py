"""Displaced or lost: whether what a repair gives back was still in the compressed model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from idp.dynamic.model import DynamicPromptModel
from idp.dynamic.wrap import prepare
from idp.errors import IdpError, TaskError
from idp.evaluate.arms import SELECTOR_OF
from idp.evaluate.damage.probes import is_right
from idp.evaluate.damage.world import knows_world
from idp.evaluate.probe.frequency import counted, tellings
from idp.evaluate.probe.layers import Inside, look_inside
from idp.evaluate.probe.questions import BOOKS, Asked, ask_facts
from idp.evaluate.probe.result import Probed, Row, regains, rows_of
from idp.observer import Observer, Silent
from idp.reference.world import SHARES, build_world
from idp.rivals.lora import repaired, require_repairable
from idp.run.score import score
from idp.select.registry import get_selector
from idp.stats.resampling import Array
from idp.tune.atlas import atlas_data
from idp.tune.plan import Plan

if TYPE_CHECKING:
    from idp.bank.bank import PromptBank
    from idp.model.loaded import LanguageModel

__all__ = ["ARMS", "EPOCHS", "LORA", "probe"]

Load: TypeAlias = "Callable[[], LanguageModel]"

ARMS = ("static", "router", "router-state")
"""Ways of choosing prompts that are probed unless told."""

LORA = "LoRA"

EPOCHS = 109
"""Of the reference model's training, 14.3 million tokens."""

_PARTS = 4
_LOOKED_INTO = 64


def probe(
    dense: LanguageModel,
    compressed: LanguageModel,
    bank: PromptBank,
    *,
    arms: Sequence[str] = ARMS,
    per_split: int = 700,
    lora: Load | None = None,
    lora_steps: int = 400,
    seed: int = 0,
    observer: Observer | None = None,
) -> Probed:
    """Put facts that prompts were tuned on, facts they were not, and facts never seen to a model and its repairs.

    Args:
        dense: the model before compression.
        compressed: the model after it.
        bank: prompts, with fitted selectors.
        arms: names of arms of an evaluation, or selectors, that choose among them.
        per_split: most facts of each set.
        lora: loads the compressed model again, for LoRA to be merged into; None leaves that arm out.
        lora_steps: of its training, on questions about tuning facts.
        seed: which facts are asked, the options, and LoRA.
        observer: is told of progress.

    Raises:
        TaskError: the models do not know the reference world.
        IdpError: a selector or model that cannot be used.

    Source: arXiv 2310.00867 (displaced, not forgotten); the control on facts never seen is ours.

    Example:
        >>> probe(load("reference-dense"), load("reference"), bank).regains[0].p < 0.01  # doctest: +SKIP
        True
    """
    if not knows_world(compressed.tokenizer):
        raise TaskError("facts are known of the reference world alone, which only the reference models have learned.")
    told = observer or Silent()
    prompted = _prepared(dense, compressed, bank, arms, seed)
    notes: list[str] = []
    repair = None if lora is None else _possible(compressed, lora, notes)
    world = build_world(0)
    asked = ask_facts(compressed, world, per_split, seed)
    right: dict[str, Array] = {}
    inside: dict[str, Inside] = {}
    for name, model in prompted.items():
        told.stage(name, len(asked))
        choices = _choices(model, asked)
        right[name] = _right(model, asked, choices, told)
        if looked := _inside(model, asked, choices):
            inside[name] = looked
    if repair is not None:
        right[LORA] = _with_lora(repair(), asked, lora_steps, seed, told)
    parts = {str(split): np.array([each.split == split for each in asked]) for split in SHARES}
    sets = [row for book in BOOKS for row in rows_of(asked, right, parts, book)]
    return Probed(
        model=compressed.name,
        dense=dense.name,
        arms=list(right),
        sets=sets,
        frequencies=_by_frequency(asked, right),
        regains=regains(asked, right),
        inside=inside,
        notes=notes,
    )


def _prepared(
    dense: LanguageModel, compressed: LanguageModel, bank: PromptBank, arms: Sequence[str], seed: int
) -> dict[str, DynamicPromptModel]:
    """The models and every way of choosing, made before anything is asked: what cannot be made is told at once."""
    for arm in arms:
        if arm in ("dense", "compressed", "oracle"):
            raise TaskError(
                f"{arm!r} is no way of choosing that could be probed; dense and compressed are asked anyway."
            )
        get_selector(SELECTOR_OF.get(arm, arm))
    plain = {name: prepare(lm, None, "none", seed=seed) for name, lm in (("dense", dense), ("compressed", compressed))}
    return plain | {arm: prepare(compressed, bank, SELECTOR_OF.get(arm, arm), seed=seed) for arm in arms}


def _choices(prompted: DynamicPromptModel, asked: Sequence[Asked]) -> list[int]:
    """The prompt of every question, chosen by the question alone."""
    contexts, options = ([each.example.context for each in asked], [each.example.continuations for each in asked])
    return [selection.index for selection in prompted.selector.select_among(contexts, options)]


def _right(prompted: DynamicPromptModel, asked: Sequence[Asked], choices: Sequence[int], observer: Observer) -> Array:
    requests = [each.example.request for each in asked]
    scored = score(prompted.store, requests, choices, advance=observer.advance)
    return np.array([is_right(each.example, answer) for each, answer in zip(asked, scored, strict=True)], dtype=float)


def _inside(prompted: DynamicPromptModel, asked: Sequence[Asked], choices: Sequence[int]) -> Inside | None:
    """What prompts do inside the model, for some evaluation questions."""
    places = [n for n, each in enumerate(asked) if (each.split, each.book) == ("evaluation", "closed")][:_LOOKED_INTO]
    inputs = [asked[place].example.context for place in places]
    return look_inside(prompted.store, inputs, [choices[place] for place in places])


def _possible(lm: LanguageModel, load: Load, notes: list[str]) -> Load | None:
    """The arm that repairs weights, where it can be had; a note says what it is, or why it cannot."""
    try:
        require_repairable(lm)
    except IdpError as error:
        notes.append(f"without {LORA}: {error}")
        return None
    notes.append(f"{LORA} is merged into the weights: zeros are filled, and the model is as large as the dense one.")
    return load


def _with_lora(lm: LanguageModel, asked: Sequence[Asked], steps: int, seed: int, observer: Observer) -> Array:
    """Which questions are answered rightly once the weights were repaired."""
    tuning = [example for example in atlas_data(lm, 4000, seed).tuning if not example.is_text]
    mended = repaired(lm, tuning, 8, Plan(steps, 3e-3, seed=seed), observer)
    observer.stage(LORA, len(asked))
    return _right(prepare(mended, None, "none"), asked, [-1] * len(asked), observer)


def _by_frequency(asked: Sequence[Asked], right: dict[str, Array]) -> list[Row]:
    """Accuracy on facts that the model has seen, from those that were told least often to those told most often."""
    seen = {each.fact for each in asked if each.split != "unseen"}
    told = tellings(build_world(0), EPOCHS)
    parts = counted({fact: told[fact] for fact in seen}, _PARTS)
    masks = {name: np.array([each.fact in set(facts) for each in asked]) for name, facts in parts}
    return list(rows_of(asked, right, masks, "closed"))
