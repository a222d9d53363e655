"""What a report says, whatever it is written in."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from idp.files import public_name
from idp.report.comparison import check_same_items, labels
from idp.report.items import Fate, fates
from idp.report.notes import notes
from idp.report.run import PLAIN, Run, interval_in
from idp.report.tables import (
    Table,
    arms_table,
    fates_table,
    pairs_table,
    seeds_table,
    sets_pairs_table,
    sets_table,
    tasks_table,
)
from idp.report.words import interval, percent, points

__all__ = ["Report", "report_of"]


@dataclass(frozen=True)
class Report:
    """All that a report says.

    Attributes:
        title: what was evaluated.
        headline: the result in a sentence or two, one for each run.
        compared: what was compared: name and value.
        repeat: commands that repeat it.
        arms: table of arms.
        about: what every arm is.
        chosen: by run and arm, how often each prompt was chosen.
        seeds: differences over seeds, where runs differ in nothing else.
        sets: by run, sets of tasks that are looked at apart.
        sets_pairs: by run, pairs of arms on these.
        pairs: by run, every pair of arms.
        tasks: by run, every task.
        fates: by run, what became of items.
        examples: by run, items to read.
        notes: what a reader should know.
        environment: by run, versions and hashes.
        runs: by what they are called.
    """

    title: str
    headline: Sequence[str]
    compared: Mapping[str, Mapping[str, str]]
    repeat: Sequence[str]
    arms: Table
    about: Mapping[str, str]
    chosen: Mapping[str, Mapping[str, str]]
    seeds: Table | None
    sets: Mapping[str, Table]
    sets_pairs: Mapping[str, Table]
    pairs: Mapping[str, Table]
    tasks: Mapping[str, Table]
    fates: Mapping[str, Table]
    examples: Mapping[str, Sequence[Fate]]
    notes: Sequence[str]
    environment: Mapping[str, Mapping[str, str]]
    runs: Mapping[str, Run]


def report_of(runs: Sequence[Run]) -> Report:
    """Put together what evaluations found.

    Raises:
        TaskError: they are of different items.
    """
    check_same_items(runs)
    named = dict(zip(labels(runs), runs, strict=True))
    mains = {label: run.main_arm for label, run in named.items() if run.main_arm and run.main_arm not in PLAIN}
    lost = {label: fates_table(named[label], arm) for label, arm in mains.items()}
    return Report(
        title=" and ".join(dict.fromkeys(run.name for run in runs)),
        headline=[_headline(label, run) for label, run in named.items()],
        compared={label: _compared(run) for label, run in named.items()},
        repeat=[_command(run) for run in runs],
        arms=arms_table(named),
        about={name: arm["about"] for run in runs for name, arm in run.arms.items()},
        chosen={label: _chosen(run) for label, run in named.items()},
        seeds=seeds_table(runs),
        sets={label: table for label, run in named.items() if (table := sets_table(run)) is not None},
        sets_pairs={label: table for label, run in named.items() if (table := sets_pairs_table(run)) is not None},
        pairs={label: pairs_table(run) for label, run in named.items()},
        tasks={label: tasks_table(run) for label, run in named.items()},
        fates={label: table for label, table in lost.items() if table is not None},
        examples={label: fates(named[label], arm) for label, arm in mains.items()},
        notes=_notes(named),
        environment={label: _environment(run) for label, run in named.items()},
        runs=named,
    )


def _headline(label: str, run: Run) -> str:
    """What the main arm gives back, or what can be said without a gap."""
    arms, main = run.arms, run.main_arm
    if main is None or arms[main]["mean"] is None:
        return f"{label}: no task with an accuracy was evaluated."
    mean = f"{percent(arms[main]['mean'])} %"
    if main in PLAIN:
        gap = run.idp["gap"]
        cost = "" if gap is None else f"; compression cost {points(interval_in(gap))} points"
        none = "" if {*arms, *run.idp["failed"]} - {*PLAIN} else " No prompts were evaluated."
        return f"{label}: the {main} model has a mean accuracy of {mean}{cost}.{none}"
    if "compressed" not in arms:
        return f"{label}: {main} has a mean accuracy of {mean}."
    before = (
        f"{label}: {main} has a mean accuracy of {mean}, the compressed model {percent(arms['compressed']['mean'])} %"
    )
    if "dense" not in arms:
        return f"{before}. Without a dense model no share of the loss can be stated."
    gap = run.idp["gap_recovered"].get(main) or {"value": None}
    whole = f"{before}, the dense one {percent(arms['dense']['mean'])} %"
    if gap["value"] is None:
        return f"{whole}. It cannot be told that compression cost anything, so no share of that is stated."
    return f"{whole}: {interval(interval_in(gap))} of what compression cost is given back."


def _compared(run: Run) -> dict[str, str]:
    model, bank, settings = run.idp["model"], run.idp["bank"], run.idp["settings"]
    counts = [run.count(task) for task in run.tasks]
    gap = run.idp["gap"]
    return {
        "Compressed model": f"{model['source']} ({model['compression'] or 'compression not stated'}), {model['dtype']}",
        "Dense model": "none" if "dense" not in run.arms else public_name(settings["dense"] or "the alias's own"),
        "Bank": f"{bank['name']}: {len(bank['prompts'])} prompts{_lengths(bank['tokens'])}",
        "Tasks": f"{len(counts)}, {sum(counts):,} items; {len(run.in_mean)} of them make the mean",
        "Cost of compression": "not known" if gap is None else f"{points(interval_in(gap))} points",
        "Seed": str(run.idp["seed"]),
    }


def _lengths(tokens: Sequence[int]) -> str:
    if not tokens:
        return ""
    least, most = min(tokens), max(tokens)
    return f" of {least} tokens" if least == most else f" of {least} to {most} tokens"


def _command(run: Run) -> str:
    """The command that repeats a run."""
    settings = run.idp["settings"]
    parts = ["idp", "eval", "--model", public_name(settings["model"])]
    for name in ("dense", "dense_bank", "bank", "limit", "text_limit", "batch_size", "data_dir"):
        if settings[name] is not None:
            parts += [f"--{name.replace('_', '-')}", public_name(str(settings[name]))]
    parts += ["--tasks", ",".join(settings["tasks"]), "--arms", ",".join(settings["arms"])]
    parts += ["--seed", str(settings["seed"]), "--fit-items", str(settings["fit_items"])]
    parts += ["--dtype", run.idp["model"]["dtype"], *([] if settings["fit"] else ["--no-fit"])]
    allowed = [name for name in ("allow_mismatch", "allow_pickle", "trust_remote_code") if settings[name]]
    return shlex.join([*parts, *[f"--{name.replace('_', '-')}" for name in allowed]])


def _chosen(run: Run) -> dict[str, str]:
    """Of every arm that chooses: the prompts it chose, most often first."""
    found = {}
    for name, arm in run.arms.items():
        counts = sorted(arm["prompts_chosen"].items(), key=lambda pair: -pair[1])
        if [prompt for prompt, _ in counts] != ["none"]:
            found[name] = ", ".join(f"{prompt} {count}" for prompt, count in counts)
    return found


def _notes(runs: Mapping[str, Run]) -> list[str]:
    """What is to be known of all runs once, and of single ones with their names."""
    found = {label: notes(run) for label, run in runs.items()}
    for label, run in runs.items():
        if run.without_items:
            found[label].append(f"Results of single items are not known for {', '.join(run.without_items)}.")
    common = [line for line in next(iter(found.values())) if all(line in lines for lines in found.values())]
    return common + [f"{label}: {line}" for label, lines in found.items() for line in lines if line not in common]


def _environment(run: Run) -> dict[str, str]:
    idp = run.idp
    date = datetime.fromtimestamp(run.results["date"], tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    hashes = {f"fingerprint: {key}": value for key, value in idp["model"]["fingerprint"].items()}
    bank = {"bank": idp["bank"]["digest"]} if idp["bank"]["digest"] else {}
    items = {f"items: {task}": value for task, value in idp["items"].items()}
    known = {"date": date, "idp": idp["version"], **idp["environment"], **hashes, **bank, **items}
    return {name: str(value) for name, value in known.items() if value is not None}
