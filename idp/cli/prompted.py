"""What commands that try a model with prompts share: loading it by names, reading texts, scores for JSON."""

from __future__ import annotations

import heapq
import math
import sys
from typing import TYPE_CHECKING, TypeVar

from idp.errors import IdpError

if TYPE_CHECKING:
    from idp.bank.bank import PromptBank
    from idp.dynamic.model import DynamicPromptModel
    from idp.model.spec import ModelSpec
    from idp.observer import Observer
    from idp.select.base import Selection

T = TypeVar("T", str, None)

WITHOUT_FITTING = "none"
"""What chooses by default where the bank holds no fitted router: rules that were not fitted may do harm."""


def load_prompted(
    observer: Observer,
    model: str | ModelSpec,
    folder: str | None,
    selector: str | None,
    device: str,
    dtype: str,
    seed: int,
    allow_mismatch: bool,
) -> DynamicPromptModel:
    """Load a model, its bank (by default the model's own) and a selector (by default one that was fitted).

    Raises:
        IdpError: an unknown model, bank or selector, or ones that do not fit each other.
    """
    from idp.model.aliases import resolve

    spec = resolve(model) if isinstance(model, str) else model
    from idp.select.registry import AUTO, get_selector

    wanted = None if selector == AUTO else selector
    if wanted is not None:
        get_selector(wanted)  # a wrong name should not cost the wait for the model
    observer.stage(f"loading {spec.name}", None)
    from idp.dynamic.wrap import prepare
    from idp.model.load import load

    lm = load(spec, device=device, dtype=dtype, observer=observer)
    if selector == "none" and folder is None:
        return prepare(lm, None, "none", seed=seed)
    bank = open_bank(folder or spec.bank)
    return prepare(lm, bank, wanted or _default_selector(bank, observer), allow_mismatch=allow_mismatch, seed=seed)


def open_bank(path: str | None) -> PromptBank:
    """The bank in a folder, or without one the general text bank."""
    from idp.bank.bank import PromptBank
    from idp.bank.text import text_bank

    return text_bank() if path is None else PromptBank.load(path)


def _default_selector(bank: PromptBank, observer: Observer) -> str:
    from idp.select.registry import default_selector

    if found := default_selector(bank):
        return found
    observer.note("the bank holds no fitted router, so no prompt is used; --selector names another rule.")
    return WITHOUT_FITTING


def read_text(text: str) -> str:
    """The text itself, or stdin in its place.

    Raises:
        IdpError: there is nothing to continue, or it is not UTF-8.
    """
    try:
        read = sys.stdin.read().rstrip("\n") if text == "-" else text
        read.encode()  # bytes of an argument that are no UTF-8 come as lone surrogates
    except UnicodeError as error:
        raise IdpError("a text is not UTF-8; convert it first (iconv -t UTF-8).") from error
    if not read.strip():
        raise IdpError("a text is empty: give the words that the model should continue.")
    return read


def named_scores(prompted: DynamicPromptModel, choice: Selection, no_prompt: T) -> list[tuple[str | T, float]]:
    """The score of each arm by its name, `no_prompt` for that of "no prompt"; of very many the best ones."""
    from idp.select.base import MOST_SCORES

    names: list[str | T] = [*(prompted.bank.names if prompted.bank else ()), no_prompt]
    pairs = list(zip(names, choice.scores, strict=True))
    return pairs if len(pairs) <= MOST_SCORES else heapq.nlargest(MOST_SCORES, pairs, key=lambda pair: pair[1])


def finite(score: float) -> float | None:
    """A score as JSON can hold it: null where it is infinite."""
    return score if math.isfinite(score) else None
