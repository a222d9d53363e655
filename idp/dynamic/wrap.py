"""From a model somebody already has to one that is given a prompt for each input."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from idp.bank.bank import PromptBank
from idp.bank.storage import bank_path
from idp.dynamic.model import DynamicPromptModel
from idp.errors import BankError, ModelError, SelectorError
from idp.model.loaded import LanguageModel
from idp.run.store import BUDGET, PrefixStore
from idp.select.base import Selector
from idp.select.constant import NoneSelector
from idp.select.registry import AUTO, DEFAULTS, default_selector, get_selector

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["fitted_selector", "prepare", "wrap"]


def wrap(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    bank: PromptBank | str | os.PathLike[str] | None = None,
    selector: str | Selector = AUTO,
    *,
    allow_mismatch: bool = False,
    seed: int = 0,
    prefix_budget: int = BUDGET,
    keep_prefixes: bool | str | os.PathLike[str] = False,
) -> DynamicPromptModel:
    """Give a model prompts: the result's `generate` is used like the model's own.

    Args:
        model: a causal language model of transformers; it is not changed, but put into evaluation mode, and its
            weights ask for no gradients.
        tokenizer: its tokenizer.
        bank: the prompts, or where `PromptBank.load` finds them; None only with selector `none`.
        selector: a name, or a selector of yours. What a selector has learned is read from the bank. `auto` is the best
            router that the bank holds (`idp.select.registry.DEFAULTS`), and an error where it holds none; `router` runs
            nothing to choose.
        allow_mismatch: use the bank although it was made for another model.
        seed: for selectors that draw at random.
        prefix_budget: bytes of compiled prompts kept in memory; those beyond it are compiled when they are needed.
        keep_prefixes: a folder in which compiled prompts are kept between runs; True is `prefixes` beside the bank,
            which has to be a path then.

    Returns:
        The model with its prompts.

    Raises:
        BankError: no or a broken bank, or one made for another model.
        ModelError: a model that prompts cannot be put in front of.
        SelectorError: an unknown selector, or one that is not fitted on this bank.

    Example:
        >>> prompted = idp.wrap(model, tokenizer, bank="my-bank")  # doctest: +SKIP
        >>> prompted.generate(**tokenizer("The capital of France is", return_tensors="pt"))  # doctest: +SKIP
    """
    lm = LanguageModel(model, tokenizer, _name(model, tokenizer))
    return prepare(
        lm,
        bank,
        selector,
        allow_mismatch=allow_mismatch,
        seed=seed,
        prefix_budget=prefix_budget,
        keep_prefixes=keep_prefixes,
    )


def _prefix_folder(bank: object, keep: bool | str | os.PathLike[str]) -> Path | None:
    if not isinstance(keep, bool):
        return Path(keep)
    if not keep:
        return None
    if not isinstance(bank, str | os.PathLike):
        raise BankError("prefixes can be kept beside a bank on disk only: give keep_prefixes a folder.")
    found = bank_path(bank)
    if found != Path(bank):
        raise BankError(f"bank {str(bank)!r} comes with the package: give keep_prefixes a folder of yours.")
    return (found if found.is_dir() else found.parent) / "prefixes"


def _name(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """What the model calls itself; also a check that the two were not swapped."""
    config = getattr(model, "config", None)
    if config is None or not callable(tokenizer):
        raise ModelError(
            f"wrap takes a model and its tokenizer, in this order, but got {type(model).__name__} and "
            f"{type(tokenizer).__name__}."
        )
    return config.name_or_path or type(model).__name__


def prepare(
    lm: LanguageModel,
    bank: PromptBank | str | os.PathLike[str] | None,
    selector: str | Selector,
    *,
    allow_mismatch: bool = False,
    seed: int = 0,
    prefix_budget: int = BUDGET,
    keep_prefixes: bool | str | os.PathLike[str] = False,
) -> DynamicPromptModel:
    """Do what `wrap` does for a model that is loaded already; arguments and errors are the same."""
    if bank is None:
        if selector != "none" and not isinstance(selector, NoneSelector):
            raise SelectorError("a selector needs a bank to choose from: give bank=..., or selector='none'.")
        return DynamicPromptModel(lm, None, get_selector("none"))
    lm.require_prompts()
    prompts = bank if isinstance(bank, PromptBank) else PromptBank.load(bank)
    if prompts.fingerprint is not None:  # a bank of text fits any model, and hashing a large one takes seconds
        prompts.require(lm.fingerprint, allow_mismatch=allow_mismatch)
    store = PrefixStore(lm, prompts, budget=prefix_budget, folder=_prefix_folder(bank, keep_prefixes))
    chosen = default_selector(prompts) or DEFAULTS[-1] if selector == AUTO else selector
    return DynamicPromptModel(lm, prompts, fitted_selector(chosen, prompts, lm, seed=seed), store=store)


def fitted_selector(selector: str | Selector, bank: PromptBank, lm: LanguageModel, *, seed: int = 0) -> Selector:
    """Make a selector ready to choose: as it is, from its state in the bank, or fitted where that needs no data.

    Args:
        selector: a name, with options if wanted (`attention:calibrate=center`), or a selector, fitted or not.
        bank: what it chooses from.
        lm: the model it chooses for.
        seed: for selectors that draw at random.

    Returns:
        The selector, fitted.

    Raises:
        SelectorError: an unknown name, one fitted on another bank, or one that has to be fitted on calibration data.
    """
    made = get_selector(selector, seed=seed) if isinstance(selector, str) else selector
    if not isinstance(made, Selector):
        raise SelectorError(f"a selector is a name or an idp.select.Selector, not {made!r}.")
    if (fitted_on := _bank_of(made)) is not None:
        if fitted_on is not bank and fitted_on.digest != bank.digest:
            raise SelectorError(f"selector {made.name!r} was fitted on another bank; fit it on this one.")
        return made
    kept = selector if isinstance(selector, str) else made.name
    if kept in bank.selectors:
        return made.load_state(bank.selectors[kept], bank, lm)
    if (needs := made.needs_for(bank)) == "nothing":
        return made.fit(bank, lm)
    raise SelectorError(
        f"selector {kept!r} learns from calibration {needs}, and the bank holds no fitted one, but "
        f"{', '.join(bank.selectors) or 'none at all'}: take one of those; or fit it with selector.fit(bank, lm, "
        f"calibration) and pass the selector, or keep it with bank.with_selector({kept!r}, selector.state()). "
        "idp eval and idp select compare fit what they are asked for."
    )


def _bank_of(selector: Selector) -> PromptBank | None:
    """Return the bank a selector was fitted on, or None when it was not."""
    try:
        return selector.bank
    except SelectorError:
        return None
