"""The parts of one evaluation: models, bank, tasks and selectors, each made when first needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save as to_bytes

import idp
from idp.bank.bank import PromptBank
from idp.bank.text import text_bank
from idp.dynamic.mixing import Mixture, is_mixture
from idp.errors import IdpError, TaskError
from idp.evaluate.arms import DENSE_ARMS, SELECTOR_OF, check_arms
from idp.evaluate.divergence import DenseReference
from idp.evaluate.kept import RunFolder
from idp.evaluate.lm import Encodings, IdpLM
from idp.evaluate.memo import ANSWERS, Memo, forget
from idp.evaluate.mixtures import MixtureLM
from idp.evaluate.oracle import FixedSelector, outcomes
from idp.evaluate.parallel import Team
from idp.evaluate.selectors import SelectorShop
from idp.evaluate.settings import Settings
from idp.evaluate.tasks import EvalTask, load_tasks
from idp.model.aliases import ModelSpec, resolve
from idp.model.load import load, require_loadable
from idp.model.loaded import LanguageModel
from idp.observer import Observer, Silent
from idp.select.base import Selector
from idp.select.calibration import Calibration
from idp.select.oracle import OracleSelector

TUNED_BANK_HINT = (
    "no tuned bank is known for this model, so the general text bank is used. A tuned bank usually gives back more: "
    "idp bank build makes one (docs/tuning.md in the source of idp), and --bank FOLDER uses it."
)


class Bench:
    """Everything an evaluation works with.

    Processes that were started together run it in step: all make the same calls, each computes its share of the
    answers, and the first one alone reads and writes files and learns what selectors have to learn.

    Args:
        settings: what was asked.
        observer: is told of progress.

    Raises:
        IdpError: an unknown model or arm, or an output folder that cannot be written to.
    """

    def __init__(self, settings: Settings, observer: Observer) -> None:
        self.team = Team.launched()
        self.settings, self.observer = settings, observer if self.team.is_first else Silent()
        self.notes: list[str] = []
        self._encodings: dict[str, Encodings] = {}
        self.spec = self._resolve(settings.model)
        check_arms(settings.arms)
        require_loadable(self.spec, self.observer)  # quick, where the data of tasks may be a long download

    @contextmanager
    def held(self) -> Iterator[RunFolder]:
        """Be the only run that writes to the output folder; forget, where that was asked for, what is in it.

        Raises:
            IdpError: another run writes there, it cannot be written to, or a model, task or bank cannot be had.
        """
        folder, first = RunFolder(self.settings.output_dir), self.team.is_first
        with folder.held() if first else nullcontext():  # before models are loaded, which may take long
            self._prepare()
            if first and self.settings.fresh:  # as late as this: a mistyped option should not cost hours of answers
                forget(folder.path)
            yield folder

    def _prepare(self) -> None:
        """Find what is broken before anything is run."""
        _ = self.tasks, self.lm, self.arms
        if self.uses_bank:
            _ = self.bank

    @cached_property
    def tasks(self) -> list[EvalTask]:
        """What is asked."""
        return load_tasks(self.settings.tasks, self.settings.data_dir)

    @cached_property
    def lm(self) -> LanguageModel:
        """The compressed model."""
        self.observer.stage(f"loading {self.spec.name}", None)
        return self._load(self.spec)

    @cached_property
    def arms(self) -> list[str]:
        """The arms that can be run here, in the order of the table; notes say why the others cannot."""
        _ = self.lm  # before the dense one: without it nothing is worth doing
        possible = [name for name in check_arms(self.settings.arms) if self._possible(name)]
        if not possible:
            raise TaskError(f"no arm is left to run: {' '.join(self.notes)}")
        return possible

    def _resolve(self, name: str) -> ModelSpec:
        """What a name stands for, with what the user lets models do."""
        asked = self.settings
        return resolve(name, allow_pickle=asked.allow_pickle, trust_remote_code=asked.trust_remote_code)

    def _load(self, spec: ModelSpec) -> LanguageModel:
        """Load a model where this process has its models."""
        device = self.team.device or self.settings.device
        return load(spec, device=device, dtype=self.settings.dtype, observer=self.observer)

    @cached_property
    def dense(self) -> LanguageModel | None:
        """The uncompressed model, None where it is unknown, unwanted or out of reach (of one process, so of all)."""
        lm = self._loaded_dense()
        return lm if all(self.team.gather([lm is not None])) else None

    def _loaded_dense(self) -> LanguageModel | None:
        source = self._dense_source
        if source is None or source == "none":
            why = "is not known (--dense gives it)" if source is None else "was not asked for"
            self.note(f"the dense model {why}, so no gap can be stated.")
            return None
        self.observer.stage("loading the dense model", None)
        try:
            return self._load(self._resolve(source))
        except IdpError as error:
            if self.settings.dense is not None:
                raise
            self.note(f"the dense model cannot be loaded, so no gap can be stated: {error}")
            return None

    @property
    def _dense_source(self) -> str | None:
        return self.settings.dense or self.spec.dense

    @cached_property
    def dense_bank(self) -> PromptBank | None:
        """Prompts tuned for the dense model; None where none are known."""
        folder = self.settings.dense_bank or self._resolve(str(self._dense_source)).bank
        if folder is None or self.dense is None:
            return None
        bank = PromptBank.load(folder)
        bank.require(self.dense.fingerprint, allow_mismatch=self.settings.allow_mismatch)
        return bank

    @cached_property
    def reference(self) -> DenseReference:
        """What the dense model predicts, which all arms are held against."""
        return DenseReference(self.settings.output_dir / "dense")

    @cached_property
    def bank(self) -> PromptBank:
        """The prompts to choose from."""
        folder = self.settings.bank or self.spec.bank
        if folder is None:
            self.note(TUNED_BANK_HINT)
            return text_bank()
        bank = PromptBank.load(folder)
        bank.require(self.lm.fingerprint, allow_mismatch=self.settings.allow_mismatch)
        return bank

    @property
    def uses_bank(self) -> bool:
        """Whether any arm has prompts to choose from."""
        return any(name not in DENSE_ARMS and SELECTOR_OF.get(name, name) != "none" for name in self.arms)

    @property
    def bank_name(self) -> str:
        """What to call the bank in results; a shipped one is found by this name again."""
        folder = self.settings.bank or self.spec.bank
        return "text" if folder is None else "/".join(Path(folder).parts[-2:])

    @cached_property
    def shop(self) -> SelectorShop:
        """Where selectors come from."""
        return SelectorShop(self.lm, self.bank, self.tasks, self.settings, self.observer, self.team)

    def note(self, message: str) -> None:
        """Keep a note for the report, and tell it at once."""
        self.notes.append(message)
        self.observer.note(message)

    def circumstances(self, name: str) -> str:
        """What an arm's results depend on, as a hash: the same circumstances lead to the same results."""
        on_dense = name in DENSE_ARMS and self.dense is not None
        lm = self.dense if on_dense and self.dense is not None else self.lm
        settings = self.settings
        own = self.dense_bank if name == "dense-static" else None
        prompts = self.bank_hash if own is None else own.digest
        told = (idp.__version__, lm.fingerprint, str(lm.dtype), lm.device.type, name, prompts, settings.seed)
        judged = {entry.name: (entry.metric, entry.filter, entry.task.dump_config()) for entry in self.tasks}
        asked = (version("lm_eval"), json.dumps(judged, sort_keys=True, default=str), self.item_hashes)
        learned = self.shop.learned_from if self.uses_bank else ""
        fitted = (settings.fit, settings.fit_items, settings.limit, settings.text_limit, learned, asked)
        return hashlib.sha256(repr((told, fitted)).encode()).hexdigest()

    @cached_property
    def bank_hash(self) -> str:
        """What identifies the bank, selectors included; empty without one."""
        if not self.uses_bank:
            return ""
        fitted = [
            (name, json.dumps(state.config, sort_keys=True), hashlib.sha256(to_bytes(dict(state.tensors))).hexdigest())
            for name, state in sorted(self.bank.selectors.items())
        ]
        return repr((self.bank.digest, fitted))

    @cached_property
    def item_hashes(self) -> dict[str, str]:
        """What identifies the items of every task, within the limit."""
        return {entry.name: entry.items_hash(self.settings.limit_of(entry)) for entry in self.tasks}

    def arm_model(self, name: str) -> IdpLM:
        """lm-eval's view of an arm; the arms without prompts have the whole context to themselves."""
        if name in DENSE_ARMS and self.dense is not None:
            return self._dense_model(self.dense, self.dense_bank if name == "dense-static" else None)
        if name == "oracle":
            oracle = OracleSelector().fit(self.bank, self.lm, self.outcomes(self.tasks))
            return self._wrapped(self.lm, self.bank, oracle)
        if is_mixture(name):
            return self.mixture_model(name)
        selector = SELECTOR_OF.get(name, name)
        if selector == "none":
            return self._wrapped(self.lm, None, selector)
        return self._wrapped(self.lm, self.bank, self.shop.make(selector))

    def _dense_model(self, lm: LanguageModel, bank: PromptBank | None) -> IdpLM:
        """The dense model, bare or behind the static prompt of its own bank."""
        if bank is None:
            return self._wrapped(lm, None, "none")
        place = bank.names.index("static") if "static" in bank.names else 0
        return self._wrapped(lm, bank, FixedSelector(place).fit(bank, lm))

    def mixture_model(self, name: str) -> MixtureLM:
        """lm-eval's view of an arm that mixes prompts."""
        mixture = Mixture.parse(name)
        return MixtureLM(mixture, self.lm, self.bank, self.shop.make(mixture.of), **self._common(self.lm))

    def release(self, name: str) -> None:
        """Give back what no later arm needs: the dense model's memory."""
        if name in DENSE_ARMS and not any(later in DENSE_ARMS for later in self.arms[self.arms.index(name) + 1 :]):
            self.__dict__.pop("dense", None)

    def items(self, tasks: Sequence[EvalTask] | None = None) -> int:
        """How many items tasks, all unless told, have together, within the limit."""
        entries = self.tasks if tasks is None else tasks
        sizes = [(len(entry.task.eval_docs), self.settings.limit_of(entry)) for entry in entries]
        return sum(min(size, limit or size) for size, limit in sizes)

    def _possible(self, name: str) -> bool:
        """Leave out, with a note, what cannot be run here."""
        if name == "dense":
            return self.dense is not None
        if name == "dense-static":
            return self._possible_with_prompts_for_dense()
        missing = self.missing(SELECTOR_OF.get(name, name))
        if missing:
            self.note(f"arm {name!r} is left out: {missing}.")
        return not missing

    def _possible_with_prompts_for_dense(self) -> bool:
        if self.dense is not None and self.dense_bank is None:
            self.note("arm 'dense-static' is left out: no prompt is known for the dense model (--dense-bank gives it).")
        return self.dense is not None and self.dense_bank is not None

    def missing(self, spec: str) -> str | None:
        """What a selector or mixture lacks here; None where it can be made."""
        if is_mixture(spec):
            mixture = Mixture.parse(spec)
            return mixture.unfit(self.bank) or self.shop.missing(mixture.of)
        return None if spec in ("oracle", "none") else self.shop.missing(spec)

    def outcomes(self, tasks: Sequence[EvalTask]) -> Calibration:
        """The measured result of every item of some tasks under every prompt, and under none."""
        for entry in tasks:
            entry.seed_examples()
            entry.task.build_all_requests(limit=self.settings.limit_of(entry))
        self.observer.stage("every prompt on every item", self.items(tasks) * len(self.fixed))
        return outcomes(self.fixed, tasks, self.settings.limit_of)

    @cached_property
    def fixed(self) -> list[IdpLM]:
        """The compressed model behind every prompt, and last without one."""
        selectors = [FixedSelector(index).fit(self.bank, self.lm) for index in (*range(len(self.bank)), -1)]
        return [self._wrapped(self.lm, self.bank, selector) for selector in selectors]

    def _wrapped(self, lm: LanguageModel, bank: PromptBank | None, selector: str | Selector) -> IdpLM:
        return IdpLM(lm, bank, selector, **self._common(lm))

    def _common(self, lm: LanguageModel) -> dict[str, Any]:
        """What all arms of a model have in common."""
        # Answers of another version of the code, or of another precision, are not reused.
        scope = repr((idp.__version__, lm.fingerprint, str(lm.dtype), lm.device.type))
        settings = self.settings
        return {
            "batch_size": settings.batch_size or "auto",
            "seed": settings.seed,
            "allow_mismatch": settings.allow_mismatch,
            "memo": Memo(settings.output_dir / ANSWERS if self.team.is_first else None, scope),
            "encodings": self._encodings.setdefault(_tokenization(lm), {}),
            "advance": self.observer.advance,
            "team": self.team,
        }


def _tokenization(lm: LanguageModel) -> str:
    """What models must have in common to share tokens: the vocabulary, and what is put around a text."""
    return repr((lm.fingerprint.tokenizer, lm.tokenizer("A b.")["input_ids"]))
