"""Building a bank: from a model and examples to prompts, selectors, and a folder that tells how."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import TaskError
from idp.model.gradients import require_gradients
from idp.observer import Observer
from idp.run.store import PrefixStore
from idp.select.calibration import Calibration
from idp.tune.built import Built
from idp.tune.config import BuildConfig
from idp.tune.examples import amid, reading
from idp.tune.features import OF_THE_OBJECTIVE, Source, check_features
from idp.tune.fitting import cross_fitted_losses, with_fitted_selectors
from idp.tune.initial import initial
from idp.tune.loop import Job, Point, tune
from idp.tune.losses import kept_losses
from idp.tune.memory import require_recomputation
from idp.tune.mixture import MixtureConfig, tune_mixture
from idp.tune.mixture_bank import mixture_bank
from idp.tune.objective import Objective
from idp.tune.objective_choice import make_objective, objective_of
from idp.tune.parts import FEWEST_JUDGES, JUDGES, UNTUNED, Parts, PartsSettings, Rounds
from idp.tune.plan import Plan
from idp.tune.prune import Pruned, prune, reduced
from idp.tune.sources import Data
from idp.tune.teacher import require_same_tokenizer
from idp.tune.terms import parse_terms, require_teacher
from idp.tune.texts import choose_texts

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["STATIC_STAGE", "build"]

STATIC_STAGE = "static prompts"

_TEXTS = 200  # texts from their beginning share one context and are costly, so only some of them fit selectors
_AMID_TOKENS, _AMID_FEWEST = 128, 16  # of a row from the midst of such a text, at most and at least


def start_name(spec: str) -> str:
    """What to call a start: without the folder that it may name.

    Example:
        >>> start_name("prompt:runs/one/bank:static"), start_name("prompt:runs/one/bank"), start_name("frequent")
        ('prompt-static', 'prompt-bank', 'frequent')
    """
    kind, *rest = spec.split(":")
    return f"prompt-{Path(rest[-1]).name}" if kind == "prompt" and rest else spec


def build(
    lm: LanguageModel,
    data: Data,
    config: BuildConfig,
    folder: Path,
    observer: Observer,
    teacher: LanguageModel | None = None,
    begin: Callable[[], None] | None = None,
) -> Built:
    """Build a bank.

    Args:
        lm: the compressed model.
        data: what to tune on, and what is held out.
        config: how.
        folder: where checkpoints are kept; the same call goes on from them.
        observer: is told of progress.
        teacher: the dense model.
        begin: called once everything was found possible, before anything is computed or written.

    Returns:
        The bank and how it came about.

    Raises:
        TaskError: no data, or settings that make no sense.
        ModelError: tuning diverged, gradients do not reach the prompts, or the teacher has another tokenizer.
        PromptTooLongError: a prompt and an example do not fit into the context.
        OutputError: the folder cannot be written to.
    """
    builder = _Builder(lm, data, config, folder, observer, teacher)
    builder.check()
    if begin:
        begin()
    return builder.build()


class _Builder:
    """One bank in the making; the arguments are those of `build`."""

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
        asked = self.data.held_out if self.features_ask else self.judges
        examples = [*self.data.tuning, *asked]
        return make_objective(self.lm, self.config, examples, self.folder / "teacher", self.observer, self.teacher)

    @property
    def features_ask(self) -> bool:
        """Whether features of all examples are computed from the objective."""
        return self.config.method == "parts" and bool(OF_THE_OBJECTIVE.intersection(self.config.features))

    @cached_property
    def pool(self) -> PromptBank:
        """What texts are chosen from."""
        pool = PromptBank.load(self.config.pool)
        pool.require(self.lm.fingerprint)
        return pool

    @cached_property
    def inits(self) -> list[Tensor]:
        """Where the static prompts start, one a length."""
        config = self.config
        return [initial(config.init, self.lm, self.data.tuning, length, config.seed) for length in config.lengths]

    @cached_property
    def cut(self) -> PartsSettings:
        """How the data is cut; into fewer parts than asked for where the data does not give that many."""
        config = self.config
        judged = max(1, len(self.judges) // FEWEST_JUDGES)
        inputs = len({reading(self.lm, example) for example in [*self.data.tuning, *self.data.held_out]})
        parts = min(config.parts, judged, inputs)
        if parts < config.parts:
            why = "too few examples would judge more" if judged == parts else "there are no more different inputs"
            self.observer.note(f"{config.parts} parts are cut to {parts}: {why}")
        return PartsSettings(
            parts=parts,
            rounds=config.rounds,
            balance=config.balance,
            sample=config.sample,
            features=config.features,
            seed=config.seed,
        )

    @property
    def shape(self) -> MixtureConfig:
        """Of a mixture."""
        config = self.config
        return MixtureConfig(config.parts, config.lengths[0], config.router_noise, config.load_balance)

    def check(self) -> None:
        """Find what cannot work before anything is computed.

        Raises:
            IdpError: as for `build`.
        """
        config = self.config
        if not self.data.tuning or not self.data.held_out:
            raise TaskError("a bank needs examples to tune on and others that are held out; give it more data.")
        self.lm.require_prompts()
        if self.teacher is not None:
            require_same_tokenizer(self.teacher, self.lm)
        if len(self.data.held_out) < FEWEST_JUDGES:
            self.observer.note(f"only {len(self.data.held_out)} examples are held out: too few to tell good from bad")
        if config.method == "texts":
            _ = self.pool
            return
        has_teacher = self.teacher is not None
        require_teacher(parse_terms(objective_of(config, has_teacher)), has_teacher)
        for steps, lr in ((config.steps, config.lr), (config.part_steps, config.part_lr)):
            self.plan(steps, lr)
        if config.method == "parts":
            check_features(self.cut.features, self.lm, self.teacher)
        if config.method == "smop":
            _ = self.shape
        _ = self.inits
        require_gradients(self.lm)
        if config.checkpointing:
            require_recomputation(self.lm)

    def build(self) -> Built:
        """Do what the method says, which `check` has found possible."""
        return {"texts": self.texts, "smop": self.mixture, "static": self.static, "parts": self.partitioned}[
            self.config.method
        ]()

    def texts(self) -> Built:
        """Texts from a pool that help and complement each other; nothing is tuned."""
        pool = self.pool
        examples = random.Random(self.config.seed).sample(
            self.data.tuning, min(self.config.sample, len(self.data.tuning))
        )
        self.observer.stage(f"losses under {len(pool)} texts", len(examples) * (len(pool) + 1))
        losses = kept_losses(self.lm, list(pool), examples, self.folder, self.observer.advance)
        chosen = choose_texts(
            PrefixStore(self.lm, pool), examples, self.config.count, seed=self.config.seed, losses=losses
        )
        return self.fitted(list(chosen), [], {}, about=chosen.provenance)

    def mixture(self) -> Built:
        """Prompts and a router tuned together, and the selectors that every bank has."""
        config, objective = self.config, self.objective
        self.observer.stage("mixture of prompts", config.steps)
        mixture = tune_mixture(
            objective,
            self.shape,
            self.data.tuning,
            self.judges,
            self.plan(config.steps, config.lr),
            init=config.init,
            checkpoint=self.folder / "mixture.safetensors",
            advance=self.observer.advance,
            watch=self.observer.losses,
        )
        bank = mixture_bank(mixture, self.lm, self.judges)
        curves = {"mixture": [Point(*point[:3]) for point in mixture.curve]}
        built = self.fitted(list(bank), [], curves, about=bank.provenance)
        return built.with_selector("smop", bank.selectors["smop"], self.lm)

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
            measurements=config.measurements,
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
        self.observer.stage(STATIC_STAGE, len(jobs) * config.steps)
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
            "held_out_loss_at_start": round(curves[-1][0].held_out, 5),  # by the same examples as that after
            "seed": self.config.seed,
        }

    def calibration(self, prompts: Sequence[Prompt], parts: Parts | None, statics: int) -> Calibration:
        """The losses of held-out examples under every prompt, and the prompt of each example's part."""
        places, texts = self.judged()
        examples = [self.data.held_out[place] for place in places]
        own = [UNTUNED if parts is None else parts.held_out[place] for place in places]
        rows = [amid(self.data.held_out[place], _AMID_TOKENS) for place in texts]
        examples, own = [*examples, *rows], [*own, *[UNTUNED] * len(rows)]
        self.observer.stage("losses under every prompt", len(examples) * (len(prompts) + 1))
        losses = kept_losses(self.lm, prompts, examples, self.folder, self.observer.advance)
        hints = None if parts is None else [0 if part == UNTUNED else statics + part for part in own]
        return Calibration(
            [reading(self.lm, example) for example in examples], losses, [example.group for example in examples], hints
        )

    def judged(self) -> tuple[list[int], list[int]]:
        """Places of the held-out examples that selectors are fitted on, and of the texts among them to cut into.

        Of a text from its beginning nothing is known to choose by, so the same ones are read from their midst too:
        else a selector that saw only questions would choose as for a question when it meets running text.
        """
        texts = [
            place
            for place, example in enumerate(self.data.held_out)
            if example.is_text and len(reading(self.lm, example)) == 1
        ]
        long = [place for place in texts[:_TEXTS] if len(self.data.held_out[place].right) >= _AMID_FEWEST]
        return sorted(set(range(len(self.data.held_out))) - set(texts[_TEXTS:])), long

    def fitted(
        self,
        prompts: Sequence[Prompt],
        starts: Sequence[Prompt],
        curves: dict[str, list[Point]],
        calibration: Calibration | None = None,
        parts: Parts | None = None,
        pruned: Pruned | None = None,
        about: Mapping[str, Any] = MappingProxyType({}),
    ) -> Built:
        """Put the bank together and fit its selectors."""
        calibration = calibration or self.calibration(prompts, None, len(prompts))
        about = {**about, **self.data.about, "method": self.config.method, "seed": self.config.seed}
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
