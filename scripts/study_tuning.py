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
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from idp.cli.errors import guarded
from idp.cli.progress import progress
from idp.cli.quiet import hush
from idp.evaluate import Settings, evaluate
from idp.files import atomic_write_text, file_name, json_text
from idp.model.aliases import resolve
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.observer import Observer
from idp.tune.atlas import atlas_data
from idp.tune.build import build
from idp.tune.config import BuildConfig
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


@dataclass(frozen=True)
class Study:
    """What all runs share."""

    lm: LanguageModel
    teacher: LanguageModel
    data: Data
    base: BuildConfig
    limit: int | None
    out: Path
    observer: Observer

    def result(self, run: Run) -> float:
        """Mean accuracy of a run, measured once."""
        path = self.out / run.name / "result.json"
        if not path.exists():
            config = self.base.changed(
                {"lengths": [run.length], "objective": run.objective, "init": run.start, "seed": run.seed}
            )
            self.observer.note(run.name)
            built = build(self.lm, self.data, config, self.out / run.name / "work", self.observer, self.teacher)
            bank = built.bank.save(self.out / run.name / "bank")
            mean = self.means(("static",), str(bank), self.out / run.name)["static"]
            atomic_write_text(path, json_text({"mean": mean, **vars(run)}))
        return float(json.loads(path.read_text(encoding="utf-8"))["mean"])

    def means(self, arms: tuple[str, ...], bank: str | None, folder: Path) -> dict[str, float]:
        """Mean accuracy of arms on evaluation facts."""
        settings = Settings(model=self.base.model, bank=bank, arms=arms, limit=self.limit, output_dir=folder)
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
    steps: Annotated[int, typer.Option(help="Updates of each prompt.")] = 300,
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
        lm = load(model, dtype="float32")
        teacher = load(str(resolve(model).dense), dtype="float32")
        base = BuildConfig(model=model, method="static", steps=steps, row_tokens=96)
        study = Study(lm, teacher, atlas_data(lm, atlas, 0), base, limit or None, out / model, observer)
        bounds = study.means(("dense", "compressed"), None, out / model / "bounds")
        for run in runs(seeds):
            found[run] = study.result(run)
    console = Console(width=120)
    for table in tables(found, bounds):
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
