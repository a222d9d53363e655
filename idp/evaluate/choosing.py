"""Comparing ways of choosing on the items of tasks: every prompt is run on every item once, the rest is looking up.

Mixtures of prompts are no choice that could be looked up: they are run too.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

import idp
from idp.dynamic.mixing import is_mixture
from idp.errors import TaskError
from idp.evaluate.bench import Bench
from idp.evaluate.calibration import TEXT_TOKENS, example_of, options_of
from idp.evaluate.oracle import item_losses, item_scores
from idp.evaluate.regret import BASE, BOUND, Choices, Measured, Outcomes, Regret, regrets
from idp.evaluate.settings import Settings
from idp.evaluate.tasks import EvalTask, templates_compiled_once
from idp.evaluate.timing import timed
from idp.observer import Observer, Silent
from idp.run.store import PrefixStore
from idp.select.base import Selector
from idp.select.calibration import Calibration
from idp.select.oracle import OracleSelector
from idp.stats.resampling import Array
from idp.tune.examples import Example, fitting

__all__ = ["SELECTORS", "Comparison", "compare_selectors"]

SELECTORS = (
    "none",
    "static",
    "random",
    "attention",
    "attention:calibrate=center",
    "attention:calibrate=zscore",
    "keys",
    "keys:keys=learned",
    "embedding",
    "bandit",
    "router",
    "router:features=state",
    "likelihood:score=ppl",
    "likelihood:score=mdl",
    "likelihood:score=mi-gl,calibrate=cbm",
    "likelihood:score=mi,per=task",
    "likelihood:score=zlp,per=task",
    "likelihood:score=zpm,per=task",
    "cascade",
    "mix:how=sum",
    "mix:how=concat",
    "mix:how=ensemble,k=4",  # of all arms it would be a pass for each
    "oracle",
)
"""What is compared unless told otherwise."""

_ALONE = 20  # inputs that are chosen for one by one, to see what one request waits

Items: TypeAlias = "dict[str, list[Example]]"


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        model: name of the compressed model.
        bank: name of the bank.
        items: task -> number of items; a group is one task.
        rows: one a selector or mixture.
        notes: what a reader should know.
    """

    model: str
    bank: str
    items: dict[str, int]
    rows: list[Regret]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {**vars(self), "version": idp.__version__, "rows": [row.to_dict() for row in self.rows]}


def compare_selectors(
    settings: Settings, selectors: Sequence[str] = SELECTORS, observer: Observer | None = None
) -> Comparison:
    """Compare selectors by what they choose for the items of tasks.

    Losses and answers are kept in the output folder as they come: the same call goes on where it was interrupted.

    Args:
        settings: model, bank, tasks and the rest; its arms do not matter.
        selectors: names, with options behind a colon, mixtures (`mix:how=sum`) among them; `static` is added where it
            is missing.
        observer: is told of progress.

    Raises:
        IdpError: an unknown model, task or selector, a `static` that cannot be fitted here, or data of an unusual form.

    Example:
        >>> compare_selectors(Settings(limit=50), ["static", "router"]).rows[1].covered.value  # doctest: +SKIP
        0.12
    """
    names = list(dict.fromkeys([*selectors] if BASE in selectors else [BASE, *selectors]))
    bench = Bench(settings, observer or Silent())
    with bench.held():
        return _compared(bench, [name for name in names if _possible(bench, name)])


def _compared(bench: Bench, names: Sequence[str]) -> Comparison:
    made = {name: bench.shop.make(name) for name in names if name != BOUND and not is_mixture(name)}
    with templates_compiled_once():
        store = PrefixStore(bench.lm, bench.bank)
        longest = max(store.length(index) for index in range(len(store)))
        items: Items = {}
        for entry in bench.tasks:
            if not entry.control:
                items.setdefault(entry.column, []).extend(_items(bench, entry, longest))
        outcomes = _measured(bench, items)
        mixed = {name: _mixed(bench, name, items) for name in names if is_mixture(name)}
    made |= {BOUND: _oracle(bench, items, outcomes)} if BOUND in names else {}
    bench.observer.stage("choosing", len(made))
    chosen = {name: _choices(bench, name, selector, items) for name, selector in made.items()}
    ways = [mixed[name] if is_mixture(name) else chosen[name] for name in names]
    rows = regrets(outcomes, ways, bench.settings.seed)
    counts = {task: len(examples) for task, examples in items.items()}
    return Comparison(bench.spec.name, bench.bank_name, counts, rows, bench.notes)


def _possible(bench: Bench, name: str) -> bool:
    """Whether a selector or mixture can be made here; a note says why not, and what all are compared with has to be."""
    missing = bench.missing(name)
    if missing and name == BASE:
        raise TaskError(f"selectors are compared with {BASE!r}, but {missing}.")
    if missing:
        bench.note(f"{'mixture' if is_mixture(name) else 'selector'} {name!r} is left out: {missing}.")
    return not missing


def _items(bench: Bench, entry: EvalTask, longest: int) -> Iterator[Example]:
    """The evaluation items of a task, each with room for the longest prompt."""
    for _, doc in entry.task.doc_iterator(rank=0, limit=bench.settings.limit, world_size=1):
        example = example_of(bench.lm, entry, doc)
        if example is None:
            raise TaskError(f"items of {entry.name} have no form that a loss could be measured of: leave the task out.")
        yield from fitting(bench.lm, [example], longest, text_tokens=TEXT_TOKENS)


def _measured(bench: Bench, items: Items) -> Outcomes:
    """Losses and judged metrics of every item under every prompt, and under none."""
    contexts = sum(len({example.context for example in found}) for found in items.values())
    bench.observer.stage("losses under every prompt", contexts * len(bench.fixed))
    losses = {
        task: np.stack([item_losses(lm, found) for lm in bench.fixed], axis=1)  # (n, m + 1)
        for task, found in items.items()
    }
    judged = _judged(bench)
    found = bench.outcomes(judged) if judged else None
    column = {entry.name: entry.column for entry in judged}
    values = {}
    if found is not None:
        tasks = [column[task] for task in found.groups or []]
        values = _by_task(-found.require_losses(len(bench.bank)), tasks)
    return Outcomes((*bench.bank.names, "no prompt"), losses, values)


def _judged(bench: Bench) -> list[EvalTask]:
    return [entry for entry in bench.tasks if entry.in_mean]


def _mixed(bench: Bench, name: str, items: Items) -> Measured:
    """Run a mixture on every item; its answers are kept like those of an evaluation."""
    lm = bench.mixture_model(name)
    examples = [example for found in items.values() for example in found]
    extra = lm.mixture.passes(len(bench.bank))
    bench.observer.stage(name, len(examples) * (extra + 1) + bench.items(_judged(bench)))
    losses = {task: item_losses(lm, found) for task, found in items.items()}
    values: dict[str, list[float]] = {}
    for entry in _judged(bench):
        values.setdefault(entry.column, []).extend(item_scores(lm, entry, bench.settings.limit).values())
    choices = _choices(bench, name, lm.prompted.selector, items)
    cost = replace(choices.cost, forwards=choices.cost.forwards + extra)
    scores = {task: np.array(own) for task, own in values.items()}
    return Measured(name, losses, scores, cost, choices.seconds, choices.alone)


def _by_task(table: Tensor, tasks: Sequence[str]) -> dict[str, Array]:
    """Rows of each task, `(n, m + 1)`."""
    places = np.array(tasks)
    return {task: table.numpy()[places == task] for task in dict.fromkeys(tasks)}


def _oracle(bench: Bench, items: Items, outcomes: Outcomes) -> Selector:
    """The best choice for every context, by the losses measured."""
    contexts = [example.context for found in items.values() for example in found]
    losses = torch.from_numpy(np.concatenate(list(outcomes.losses.values())))
    return OracleSelector().fit(bench.bank, bench.lm, Calibration(contexts, losses))


def _choices(bench: Bench, name: str, selector: Selector, items: Items) -> Choices:
    """Let a selector choose for every item, and take the time."""
    examples = [example for found in items.values() for example in found]
    contexts, options = [example.context for example in examples], [options_of(example) for example in examples]
    step = max(1, len(examples) // _ALONE)
    alone = [
        timed(partial(selector.select_among, [contexts[place]], [options[place]]))[1]
        for place in range(0, len(examples), step)
    ]
    chosen, seconds = timed(partial(selector.select_among, contexts, options))
    bench.observer.advance(1)
    arms = iter(choice.index % (len(bench.bank) + 1) for choice in chosen)
    by_task = {task: np.array([next(arms) for _ in found]) for task, found in items.items()}
    return Choices(name, by_task, selector.cost, seconds / len(examples), statistics.median(alone))
