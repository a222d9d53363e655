"""Selectors for an evaluation: from the bank's state, from the cache, or fitted on training splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import idp
from idp.bank.bank import PromptBank
from idp.bank.state import SelectorState
from idp.errors import BankError, IdpError
from idp.evaluate.calibration import calibrate, options_of, training_examples, training_hash, usable
from idp.evaluate.parallel import Team
from idp.evaluate.settings import Settings
from idp.evaluate.tasks import EvalTask
from idp.model.loaded import LanguageModel
from idp.observer import Observer
from idp.resources import cache_dir
from idp.run.store import PrefixStore
from idp.select.base import Selector
from idp.select.calibration import Calibration
from idp.select.registry import get_selector


class SelectorShop:
    """Makes the selectors of one evaluation; what is expensive happens once.

    Args:
        lm: the compressed model.
        bank: its prompts.
        tasks: the tasks, whose training splits may be learned from.
        settings: of the evaluation.
        observer: is told of progress.
        team: processes that need the same selectors; the first of them learns for all.
    """

    def __init__(
        self,
        lm: LanguageModel,
        bank: PromptBank,
        tasks: Sequence[EvalTask],
        settings: Settings,
        observer: Observer,
        team: Team | None = None,
    ) -> None:
        self.lm, self.bank, self._tasks, self._settings, self._observer = lm, bank, tasks, settings, observer
        self._team = team or Team()

    def make(self, spec: str) -> Selector:
        """A selector ready to choose.

        Raises:
            SelectorError: an unknown name or option.
            TaskError: it needs fitting, and no task has a training split.
        """
        selector = get_selector(spec, seed=self._settings.seed)
        if selector.needs_for(self.bank) == "nothing" and spec not in self.bank.selectors:
            return selector.fit(self.bank, self.lm)
        return selector.load_state(self._team.agree(lambda: self._state(spec)), self.bank, self.lm)

    def _state(self, spec: str) -> SelectorState:
        """What the selector knows: as the bank holds it, as an earlier run left it, or learned now."""
        for bank in (self.bank, self._cached):
            if bank is not None and spec in bank.selectors:
                return bank.selectors[spec]
        selector = get_selector(spec, seed=self._settings.seed)
        learns = selector.needs_for(self.bank) == "losses"
        fitted = selector.fit(self.bank, self.lm, self._calibration if learns else self._inputs)
        self._keep(spec, fitted)
        return fitted.state()

    def missing(self, spec: str) -> str | None:
        """What the selector needs and cannot have here; None where it can be made."""
        if spec in self.bank.selectors:
            return None
        selector = get_selector(spec)
        try:
            selector.require(self.lm)
        except IdpError as error:
            return str(error).rstrip(".")
        needs = selector.needs_for(self.bank)
        if needs == "nothing":
            return None
        if needs == "losses" and not self._settings.fit:
            return "it learns from answers, which --no-fit rules out"
        if not usable(self._tasks):
            return "it learns from training items, and no task has a training split"
        return None

    @cached_property
    def _calibration(self) -> Calibration:
        settings, store = self._settings, PrefixStore(self.lm, self.bank)
        examples = training_examples(self.lm, self._tasks, settings.fit_items, settings.seed)
        self._observer.stage("fitting selectors", len(examples) * (len(self.bank) + 1))
        return calibrate(store, examples, settings.batch_size, self._observer.advance)

    @cached_property
    def _inputs(self) -> Calibration:
        """Contexts without answers; those of the full calibration where fitting is allowed."""
        if self._settings.fit:
            return self._calibration
        examples = training_examples(self.lm, self._tasks, self._settings.fit_items, self._settings.seed)
        return Calibration(
            [example.context for example in examples], options=[options_of(example) for example in examples]
        )

    @cached_property
    def learned_from(self) -> str:
        """What identifies the training items, which may be others under the same name."""
        return training_hash(self._tasks, self._settings.fit_items, self._settings.seed)

    @property
    def _folder(self) -> Path:
        settings = self._settings
        parts = [self.lm.fingerprint, *(p.digest for p in self.bank), sorted(t.name for t in self._tasks)]
        parts += [settings.fit_items, settings.seed, settings.fit, self.learned_from, idp.__version__]
        return cache_dir() / "selectors" / hashlib.sha256(repr(parts).encode()).hexdigest()[:24]

    @property
    def _cached(self) -> PromptBank | None:
        try:
            return PromptBank.load(self._folder) if self._folder.is_dir() else None
        except BankError:
            return None  # a cache that cannot be read is as good as none

    def _keep(self, spec: str, selector: Selector) -> None:
        """Keep what was learned; a home that cannot be written to only costs time."""
        bank = self._cached or PromptBank(self.bank.prompts, self.lm.fingerprint)
        try:
            bank.with_selector(spec, selector.state()).save(self._folder)
        except IdpError as error:
            self._observer.note(f"what was fitted is not kept for the next run: {error}")
