"""Whether the effect of compression is a vector that carries over from task to task (arXiv 2408.01119 for tasks).

One prompt each, from one start, is tuned for task A on the dense and on the compressed model, and for task B likewise.
What A's two prompts differ by is added to B's dense prompt; all are tried on the compressed model, on held-out facts.

    python scripts/study_vectors.py --model reference --first easy --second endings
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.cli.errors import guarded
from idp.cli.progress import progress
from idp.cli.quiet import hush
from idp.files import public_name
from idp.model.aliases import resolve
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.observer import Observer
from idp.reference.world import build_world
from idp.run.store import PrefixStore
from idp.tune.atlas import atlas_examples
from idp.tune.config import BuildConfig
from idp.tune.examples import Example
from idp.tune.initial import initial
from idp.tune.loop import Job, tune
from idp.tune.losses import example_losses
from idp.tune.objective import Objective
from idp.tune.plan import Plan

LENGTH = 16


@dataclass(frozen=True)
class Study:
    """The two models, and how prompts are tuned."""

    compressed: LanguageModel
    dense: LanguageModel
    start: Tensor
    plan: Plan
    observer: Observer

    def tuned(self, tuning: Sequence[Example], held_out: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """Prompts for a task, `(n, d)` each: tuned on the compressed model, and on the dense one."""
        compressed, dense = (self._tuned(lm, tuning, held_out) for lm in (self.compressed, self.dense))
        return compressed, dense

    def _tuned(self, lm: LanguageModel, tuning: Sequence[Example], held_out: Sequence[Example]) -> Tensor:
        self.observer.stage(f"{tuning[0].group} on {public_name(lm.name)}", self.plan.steps)
        job = Job(tuning[0].group, self.start, tuning, held_out)
        [found] = tune(Objective(lm, "answer"), [job], self.plan, advance=self.observer.advance)
        return found.embedding


def errors(lm: LanguageModel, prompts: dict[str, Tensor], examples: Sequence[Example]) -> dict[str, float]:
    """Mean probability of being wrong behind each prompt, and without one."""
    bank = PromptBank([Prompt(f"p{place}", embedding=each) for place, each in enumerate(prompts.values())])
    means = example_losses(PrefixStore(lm, bank), examples).mean(0).tolist()
    return dict(zip([*prompts, "no prompt"], means, strict=True))


@guarded()
def main(
    model: Annotated[str, typer.Option(help="A reference model.")] = "reference",
    first: Annotated[str, typer.Option(help="Task A, where the vector is from.")] = "easy",
    second: Annotated[str, typer.Option(help="Task B, where it goes.")] = "endings",
    steps: Annotated[int, typer.Option(help="Updates of each prompt.")] = 200,
    atlas: Annotated[int, typer.Option(help="Items of each task.")] = 4000,
    seed: Annotated[int, typer.Option(help="Of data, start and order.")] = 0,
    debug: Annotated[bool, typer.Option(help="Show library messages.")] = False,
) -> None:
    """Tune four prompts, add and compare."""
    hush(debug)
    with progress(debug) as observer:
        lm, world = load(model, dtype="float32"), build_world(0)
        one, two = (atlas_examples(lm, world, atlas, seed, [task]) for task in (first, second))
        start = initial("frequent", lm, [*one[0], *two[0]], LENGTH, seed)
        plan = Plan(steps, BuildConfig().lr, seed=seed)
        study = Study(lm, load(str(resolve(model).dense), dtype="float32"), start, plan, observer)
        a, b = study.tuned(*one), study.tuned(*two)
        prompts = {
            f"{second}, tuned on the compressed model": b[0],
            f"{second}, tuned on the dense model": b[1],
            f"the same + effect of compression on {first}": b[1] + a[0] - a[1],
            f"{first}, tuned on the compressed model": a[0],
        }
        found = errors(lm, prompts, two[1])
    table = Table("prompt", f"error on {second}", title=f"{model}, held-out facts")
    for name, value in found.items():
        table.add_row(name, f"{value:.4f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
