"""Prompt lengths, objectives, starts and seeds compared: one static prompt each, judged on evaluation facts.

    python scripts/study_tuning.py --model reference --out runs/study

Lengths are crossed with objectives, and at 16 tokens starts with objectives, each with every seed. What was run is
kept: the same command goes on where it stopped, and only prints the tables when all is done.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.cli.errors import guarded
from idp.cli.progress import progress
from idp.cli.quiet import hush
from idp.errors import TaskError
from idp.evaluate import Settings, evaluate
from idp.files import atomic_write_text, file_name, json_text
from idp.model.aliases import resolve
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.observer import Observer
from idp.select.calibration import Calibration
from idp.select.constant import StaticSelector
from idp.tune.atlas import atlas_data
from idp.tune.config import BuildConfig
from idp.tune.initial import initial
from idp.tune.loop import Job, tune
from idp.tune.objective import Objective
from idp.tune.objective_choice import make_objective
from idp.tune.plan import Plan
from idp.tune.sources import Data

LENGTHS = (1, 5, 16, 50, 100)
OBJECTIVES = ("next-token", "answer", "distill+distill-choice")
STARTS = ("frequent", "vocabulary", "uniform", "labels", "text:Answer the question with the fact itself.")
LENGTH, START = 16, "frequent"


@dataclass(frozen=True)
class Run:
    """One prompt to be tuned and judged."""

    length: int
    objective: str
    start: str
    seed: int

    @property
    def name(self) -> str:
        """Folder of its results."""
        return file_name(f"{self.length}-{self.objective}-{self.start}-{self.seed}")


def runs(seeds: int) -> Iterator[Run]:
    """All runs, those of the first seed first."""
    for seed in range(seeds):
        for objective in OBJECTIVES:
            yield from (Run(length, objective, START, seed) for length in LENGTHS)
            yield from (Run(LENGTH, objective, start, seed) for start in STARTS if start != START)


@dataclass(eq=False)
class Study:
    """What all runs share."""

    model: str
    steps: int
    atlas: int
    limit: int | None
    out: Path
    observer: Observer

    def claim(self) -> None:
        """Take the folder for runs with these settings.

        Raises:
            TaskError: it holds runs with others.
        """
        path = self.out / "settings.json"
        wanted = {"model": self.model, "steps": self.steps, "atlas": self.atlas, "limit": self.limit}
        begun = any(self.out.glob("*/result.json"))
        if begun and (not path.exists() or json.loads(path.read_text(encoding="utf-8")) != wanted):
            raise TaskError(f"{self.out} holds runs with other settings than {wanted}: give another --out.")
        atomic_write_text(path, json_text(wanted))

    @cached_property
    def lm(self) -> LanguageModel:
        """The compressed model."""
        return load(self.model, dtype="float32")

    @cached_property
    def data(self) -> Data:
        """What every prompt is tuned on, and judged by while it is tuned."""
        return atlas_data(self.lm, self.atlas, 0)

    @cached_property
    def objectives(self) -> dict[str, Objective]:
        """All objectives; the teacher is run once."""
        teacher = load(str(resolve(self.model).dense), dtype="float32")
        examples = [*self.data.tuning, *self.data.held_out]
        return {
            name: make_objective(
                self.lm, BuildConfig(objective=name), examples, self.out / "teacher", self.observer, teacher
            )
            for name in OBJECTIVES
        }

    def result(self, run: Run) -> float:
        """Mean accuracy of a run, measured once."""
        path = self.out / run.name / "result.json"
        if not path.exists():
            bank = self.tuned(run).save(self.out / run.name / "bank")
            mean = self.means(("static",), str(bank), self.out / run.name)["static"]
            atomic_write_text(path, json_text({"mean": mean, **vars(run)}))
        return float(json.loads(path.read_text(encoding="utf-8"))["mean"])

    def tuned(self, run: Run) -> PromptBank:
        """A bank that puts one tuned prompt in front of everything, whether it helps or not."""
        init = initial(run.start, self.lm, self.data.tuning, run.length, run.seed)
        job = Job("static", init, self.data.tuning, self.data.held_out)
        plan = Plan(self.steps, BuildConfig().lr, seed=run.seed)
        objective = self.objectives[run.objective]
        self.observer.stage(run.name, self.steps)
        checkpoint = self.out / run.name / "static.safetensors"
        [found] = tune(objective, [job], plan, checkpoint=checkpoint, advance=self.observer.advance)
        bank = PromptBank([Prompt("static", embedding=found.embedding)], self.lm.fingerprint)
        always = Calibration([[0]], torch.tensor([[0.0, 1.0]]))
        return bank.with_selector("static", StaticSelector().fit(bank, self.lm, always).state())

    def means(self, arms: tuple[str, ...], bank: str | None, folder: Path) -> dict[str, float]:
        """Mean accuracy of arms on evaluation facts."""
        settings = Settings(model=self.model, bank=bank, arms=arms, limit=self.limit, output_dir=folder)
        found = evaluate(settings, self.observer).arms
        return {name: arm.mean for name, arm in found.items() if arm.mean is not None}


def tables(found: dict[Run, float], bounds: dict[str, float]) -> list[Table]:
    """Gap recovered, mean over seeds and spread, by length and by start."""
    gap = bounds["dense"] - bounds["compressed"]
    shares = {run: (mean - bounds["compressed"]) / gap for run, mean in found.items()}
    rows = {
        "length": [(str(length), LENGTHS.index(length), START) for length in LENGTHS],
        "start (16 tokens)": [(start, LENGTHS.index(LENGTH), start) for start in STARTS],
    }
    made = []
    for title, lines in rows.items():
        table = Table(title, *OBJECTIVES, title="Gap recovered by a static prompt, mean over seeds [lowest, highest]")
        for name, place, start in lines:
            cells = [
                _cell([s for r, s in shares.items() if (r.length, r.objective, r.start) == (LENGTHS[place], o, start)])
                for o in OBJECTIVES
            ]
            table.add_row(name, *cells)
        made.append(table)
    return made


def _cell(shares: list[float]) -> str:
    if not shares:
        return ""
    low, mean, high = (100 * share for share in (min(shares), statistics.mean(shares), max(shares)))
    return f"{mean:.1f} % [{low:.1f}, {high:.1f}]"


@guarded()
def main(
    model: Annotated[str, typer.Option(help="A reference model.")] = "reference",
    steps: Annotated[int, typer.Option(help="Updates of each prompt.")] = 200,
    atlas: Annotated[int, typer.Option(help="Items of each task to tune on.")] = 4000,
    limit: Annotated[int, typer.Option(help="Evaluation items a task; 0 for all.")] = 200,
    seeds: Annotated[int, typer.Option(help="Seeds, from 0.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/study"),
    debug: Annotated[bool, typer.Option(help="Show library messages.")] = False,
) -> None:
    """Tune and judge every prompt, and print the tables."""
    hush(debug)
    found: dict[Run, float] = {}
    with progress(debug) as observer:
        study = Study(model, steps, atlas, limit or None, out / model, observer)
        study.claim()
        bounds = study.means(("dense", "compressed"), None, out / model / "bounds")
        for run in runs(seeds):
            found[run] = study.result(run)
    console = Console(width=120)
    for table in tables(found, bounds):
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
