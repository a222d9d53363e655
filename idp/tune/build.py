"""Building a bank: from a model and examples to prompts, selectors, and a folder that tells how."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import TaskError
from idp.observer import Observer
from idp.run.store import PrefixStore
from idp.select.base import Calibration
from idp.tune.built import Built
from idp.tune.config import BuildConfig
from idp.tune.features import OF_WHAT_BROKE, Source, check_features
from idp.tune.fitting import cross_fitted_losses, with_fitted_selectors
from idp.tune.initial import initial
from idp.tune.loop import Job, Point, tune
from idp.tune.losses import kept_losses
from idp.tune.mixture import MixtureConfig, tune_mixture
from idp.tune.mixture_bank import mixture_bank
from idp.tune.objective import Objective
from idp.tune.parts import FEWEST_JUDGES, JUDGES, Parts, PartsSettings, Rounds
from idp.tune.plan import Plan
from idp.tune.prune import Pruned, prune, reduced
from idp.tune.sources import Data
from idp.tune.teacher import Teacher, teach
from idp.tune.terms import TAUGHT, parse_terms
from idp.tune.texts import choose_texts

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["asks_a_teacher", "build", "objective_of"]

_TEXTS = 200  # running texts share one context and are costly, so only some of them fit selectors


def asks_a_teacher(config: BuildConfig) -> bool:
    """Whether a build needs the dense model, if there is one."""
    if config.method == "texts":
        return False
    distils = config.objective == "auto" or bool(parse_terms(config.objective).keys() & TAUGHT)
    return distils or (config.method == "parts" and bool(set(config.features) & OF_WHAT_BROKE))


def start_name(spec: str) -> str:
    """What to call a start: without the folder that it may name.

    Example:
        >>> start_name("prompt:runs/one/bank:static"), start_name("frequent")
        ('prompt-static', 'frequent')
    """
    kind, *rest = spec.split(":")
    return f"prompt-{rest[-1]}" if kind == "prompt" and rest else spec


def objective_of(config: BuildConfig, has_teacher: bool) -> str:
    """The terms that prompts are tuned on: those asked for, or distillation where there is a teacher.

    Raises:
        TaskError: unknown terms.
    """
    chosen = config.objective
    if chosen == "auto":
        chosen = "distill+distill-choice" if has_teacher else "answer+choice"
    parse_terms(chosen)
    return chosen


def build(
    lm: LanguageModel,
    data: Data,
    config: BuildConfig,
    folder: Path,
    observer: Observer,
    teacher: LanguageModel | None = None,
) -> Built:
    """Build a bank.

    Args:
        lm: the compressed model.
        data: what to tune on, and what is held out.
        config: how.
        folder: where checkpoints are kept; the same call goes on from them.
        observer: is told of progress.
        teacher: the dense model.

    Returns:
        The bank and how it came about.

    Raises:
        TaskError: no data, or settings that make no sense.
        ModelError: tuning diverged, gradients do not reach the prompts, or the teacher has another tokenizer.
        PromptTooLongError: a prompt and an example do not fit into the context.
        OutputError: the folder cannot be written to.
    """
    if not data.tuning or not data.held_out:
        raise TaskError("a bank needs examples to tune on and others that are held out; give it more data.")
    lm.require_prompts()
    return _Builder(lm, data, config, folder, observer, teacher).build()


class _Builder:
    """One bank in the making."""

    def __init__(
        self,
        lm: LanguageModel,
        data: Data,
        config: BuildConfig,
        folder: Path,
        observer: Observer,
        teacher: LanguageModel | None,
    ) -> None:
        self.lm, self.data, self.config, self.teacher = lm, data, config, teacher
        self.folder, self.observer = folder, observer
        self.judges = data.held_out[::JUDGES]

    @cached_property
    def objective(self) -> Objective:
        """What prompts are tuned on; where it distils, the teacher is run now."""
        terms = objective_of(self.config, self.teacher is not None)
        taught = self._teach(terms) if parse_terms(terms).keys() & TAUGHT else None
        return Objective(
            self.lm, terms, teacher=taught, text_tokens=self.config.row_tokens, recompute=self.config.checkpointing
        )

    @cached_property
    def inits(self) -> list[Tensor]:
        """Where the static prompts start, one a length."""
        config = self.config
        return [initial(config.init, self.lm, self.data.tuning, length, config.seed) for length in config.lengths]

    @cached_property
    def cut(self) -> PartsSettings:
        """How the data is cut; into fewer parts than asked for where too few examples would judge each prompt."""
        config = self.config
        most = max(1, len(self.judges) // FEWEST_JUDGES)
        if config.parts > most:
            self.observer.note(f"{config.parts} parts are cut to {most}: more would be judged by too few examples")
        return PartsSettings(
            min(config.parts, most), config.rounds, config.balance, config.sample, config.features, config.seed
        )

    def check(self) -> None:
        """Find settings that make no sense before anything is computed."""
        config = self.config
        parse_terms(objective_of(config, self.teacher is not None))
        for steps, lr in ((config.steps, config.lr), (config.part_steps, config.part_lr)):
            self.plan(steps, lr)
        if config.method == "parts":
            check_features(self.cut.features, self.teacher)
        if config.method != "texts":
            _ = self.inits

    def build(self) -> Built:
        """Do what the method says."""
        self.check()
        return {"texts": self.texts, "smop": self.mixture, "static": self.static, "parts": self.partitioned}[
            self.config.method
        ]()

    def texts(self) -> Built:
        """Texts from a pool that help and complement each other; nothing is tuned."""
        pool = PromptBank.load(self.config.pool)
        examples = random.Random(self.config.seed).sample(
            self.data.tuning, min(self.config.sample, len(self.data.tuning))
        )
        self.observer.stage(f"losses under {len(pool)} texts", len(examples) * (len(pool) + 1))
        chosen = choose_texts(
            PrefixStore(self.lm, pool),
            examples,
            self.config.count,
            seed=self.config.seed,
            advance=self.observer.advance,
        )
        return self.fitted(list(chosen), [], {})

    def mixture(self) -> Built:
        """Prompts and a router tuned together, and the selectors that every bank has."""
        config, objective = self.config, self.objective
        self.observer.stage("mixture of prompts", config.steps)
        mixture = tune_mixture(
            objective,
            MixtureConfig(config.parts, config.lengths[0]),
            self.data.tuning,
            self.judges,
            self.plan(config.steps, config.lr),
            init=config.init,
            checkpoint=self.folder / "mixture.safetensors",
            advance=self.observer.advance,
            watch=self.observer.losses,
        )
        bank = mixture_bank(mixture, self.lm, self.judges)
        built = self.fitted(list(bank), [], {"mixture": [Point(*point[:3]) for point in mixture.curve]})
        return replace(built, bank=built.bank.with_selector("smop", bank.selectors["smop"]))

    def static(self) -> Built:
        """One prompt for everything, of every length."""
        starts, statics, curves = self.statics()
        return self.fitted(statics, starts, curves)

    def partitioned(self) -> Built:
        """A prompt for everything and one for every part."""
        starts, statics, curves = self.statics()
        parts = self.parts([prompt.embedding for prompt in statics if prompt.embedding is not None])
        curves = curves | parts.curves
        prompts = [*statics, *self.named(parts, statics)]
        calibration = self.calibration(prompts, parts, len(statics))
        losses = calibration.require_losses(len(prompts))[:, :-1]  # (N, m)
        pruned = prune(losses, calibration.hints or [], always=range(len(statics)))
        self.observer.note(f"{len(pruned.kept)} of {len(prompts)} prompts are needed on held-out examples")
        kept = [prompts[place] for place in pruned.kept]
        return self.fitted(kept, starts, curves, reduced(calibration, pruned.kept), parts, pruned)

    def _teach(self, terms: str) -> Teacher:
        if self.teacher is None:
            raise TaskError(f"the objective {terms!r} needs the dense model as teacher; name it (--teacher).")
        # What is asked of a teacher does not depend on its answers, so any objective of the kind can put it.
        asking = Objective(
            self.lm, "next-token" if "next-token" in terms else "choice", text_tokens=self.config.row_tokens
        )
        examples = [*self.data.tuning, *self.judges]
        requests = [asking.request(view) for view in asking.views(examples)]
        self.observer.stage(f"asking the teacher {self.teacher.name}", len(set(requests)))
        return teach(
            self.teacher,
            self.lm,
            requests,
            top_k=self.config.top_k,
            temperature=self.config.temperature,
            folder=self.folder / "teacher",
            advance=self.observer.advance,
        )

    def plan(self, steps: int, lr: float) -> Plan:
        """How prompts are tuned."""
        config = self.config
        return Plan(
            steps=steps,
            lr=lr,
            batch_size=config.batch_size,
            optimizer=config.optimizer,  # type: ignore[arg-type]  # Plan checks the names
            schedule=config.schedule,  # type: ignore[arg-type]
            warmup=config.warmup,
            weight_decay=config.weight_decay,
            clip=config.clip,
            patience=config.patience,
            rows_at_once=config.rows_at_once,
            seed=config.seed,
        )

    def statics(self) -> tuple[list[Prompt], list[Prompt], dict[str, list[Point]]]:
        """One prompt for everything, of every length: as they start, tuned, and their curves."""
        config, objective, inits = self.config, self.objective, self.inits
        names = ["static"] if len(inits) == 1 else [f"static-{len(init)}" for init in inits]
        starts = [Prompt(f"{start_name(config.init)}-{len(init)}", embedding=init) for init in inits]
        jobs = [Job(name, init, self.data.tuning, self.judges) for name, init in zip(names, inits, strict=True)]
        self.observer.stage("static prompt" if len(jobs) == 1 else "static prompts", len(jobs) * config.steps)
        tuned = tune(
            objective,
            jobs,
            self.plan(config.steps, config.lr),
            checkpoint=self.folder / "static.safetensors",
            advance=self.observer.advance,
            watch=self.observer.losses,
        )
        curves = {job.name: one.curve for job, one in zip(jobs, tuned, strict=True)}
        prompts = [
            Prompt(job.name, embedding=one.embedding, provenance=self.about(start.name, [one.curve]))
            for job, one, start in zip(jobs, tuned, starts, strict=True)
        ]
        return starts, prompts, curves

    def parts(self, statics: list[Tensor]) -> Parts:
        """A prompt for every part of the data."""
        config = self.config
        source = Source(self.objective, statics[0], self.teacher, config.seed)
        plan = self.plan(config.part_steps, config.part_lr)
        rounds = Rounds(source, self.data.tuning, self.data.held_out, self.cut, plan, self.folder, self.observer)
        return rounds.run(statics)

    def named(self, parts: Parts, statics: list[Prompt]) -> list[Prompt]:
        """The parts' prompts with their provenance."""
        by_length = {len(prompt.embedding): prompt.name for prompt in statics if prompt.embedding is not None}
        found = zip(parts.prompts, parts.history, parts.counts, strict=True)
        return [
            Prompt(
                f"part-{place}",
                embedding=prompt,
                provenance=self.about(by_length[len(prompt)], curves) | {"examples": count, "rounds": len(curves)},
            )
            for place, (prompt, curves, count) in enumerate(found)
        ]

    def about(self, init: str, curves: Sequence[Sequence[Point]]) -> dict[str, Any]:
        """Where a prompt comes from; every round starts from the best prompt of the one before."""
        best = [min(curve, key=lambda point: point.held_out) for curve in curves]
        return {
            "init": init,
            "objective": self.objective.name,
            "examples": len(self.data.tuning),
            "steps": sum(curve[-1].step for curve in curves),
            "best_step": sum(point.step for point in best),
            "held_out_loss": round(best[-1].held_out, 5),
            "held_out_loss_at_start": round(curves[0][0].held_out, 5),
            "seed": self.config.seed,
        }

    def calibration(self, prompts: Sequence[Prompt], parts: Parts | None, statics: int) -> Calibration:
        """The losses of held-out examples under every prompt, and the prompt of each example's part."""
        places = self.judged()
        examples = [self.data.held_out[place] for place in places]
        self.observer.stage("losses under every prompt", len(examples) * (len(prompts) + 1))
        losses = kept_losses(self.lm, prompts, examples, self.folder, self.observer.advance)
        hints = None if parts is None else [statics + parts.held_out[place] for place in places]
        return Calibration(
            [example.context for example in examples], losses, [example.group for example in examples], hints
        )

    def judged(self) -> list[int]:
        """Places of the held-out examples that selectors are fitted on: of running text only some."""
        texts = [place for place, example in enumerate(self.data.held_out) if example.is_text]
        return sorted(set(range(len(self.data.held_out))) - set(texts[_TEXTS:]))

    def fitted(
        self,
        prompts: Sequence[Prompt],
        starts: Sequence[Prompt],
        curves: dict[str, list[Point]],
        calibration: Calibration | None = None,
        parts: Parts | None = None,
        pruned: Pruned | None = None,
    ) -> Built:
        """Put the bank together and fit its selectors."""
        calibration = calibration or self.calibration(prompts, None, len(prompts))
        about = self.data.about | {"method": self.config.method, "seed": self.config.seed}
        if self.config.method != "texts":
            about["objective"] = self.objective.name
        bank = PromptBank(prompts, fingerprint=self.lm.fingerprint, provenance=about)
        self.observer.stage("fitting selectors", None)
        costs = self.costs(bank, calibration)
        bank = with_fitted_selectors(bank, self.lm, calibration, self.config.seed)
        return Built(bank, list(starts), curves, calibration, costs, parts, pruned)

    def costs(self, bank: PromptBank, calibration: Calibration) -> dict[str, Tensor]:
        """What each way of choosing costs on examples it was not fitted on, where there are enough to tell."""
        if len({tuple(ids) for ids in calibration.inputs}) >= 2:
            return cross_fitted_losses(bank, self.lm, calibration, self.config.seed, folds=2)
        losses = calibration.require_losses(len(bank))  # (N, m + 1)
        return {"none": losses[:, -1], "oracle": losses.min(dim=1).values}
