"""What probing found, as tables, Markdown and a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from idp.errors import OutputError
from idp.evaluate.probe.layers import Inside
from idp.evaluate.probe.result import NULL, Probed, Regain, Row
from idp.files import atomic_write_bytes, atomic_write_text, json_text
from idp.pictures import require_matplotlib
from idp.report.markdown import table_lines
from idp.report.tables import Table
from idp.report.words import interval, p_text, percent

__all__ = ["accuracy_table", "headline", "inside_table", "regain_table", "require_place", "to_markdown", "write"]


def headline(found: Probed) -> list[str]:
    """What can be concluded for every arm, a sentence each."""
    return [_verdict(each) for each in found.regains]


def _verdict(regain: Regain) -> str:
    if not regain.lost["evaluation"]:
        return f"{regain.arm}: compression lost none of the evaluation questions."
    evaluation, unseen = (interval(regain.shares[split]) for split in ("evaluation", "unseen"))
    told = f"{regain.arm} has right again {evaluation} of the evaluation questions that compression lost"
    if not regain.lost["unseen"]:
        return f"{told}; there are too few questions to tell that from luck."
    luck = f"{unseen} of those about facts never seen (p {p_text(regain.p)})"
    more = regain.shares["evaluation"].value > regain.shares["unseen"].value
    if regain.p < 0.05 and more:
        return f"{told}, and {luck}: more than luck, so part of it was displaced and not lost."
    return f"{told}, and {luck}: luck could have done it."


def accuracy_table(rows: Sequence[Row], arms: Sequence[str]) -> Table:
    """Accuracy in percent, a row a set of facts."""
    cells = [
        [f"{row.book}, {row.facts}", str(row.questions), *[percent(row.accuracy[arm]) for arm in arms]] for row in rows
    ]
    return Table(["book, facts", "questions", *arms], cells)


def regain_table(regains: Sequence[Regain]) -> Table:
    """What every arm has right again of what compression lost, closed book."""
    headers = ["arm", "tuning facts", "evaluation facts", "never seen", "p (Holm)"]
    return Table(headers, [[each.arm, *_shares(each), p_text(each.p)] for each in regains])


def _shares(regain: Regain) -> list[str]:
    return [
        f"{interval(share)} of {regain.lost[split]}" if regain.lost[split] else "none lost"
        for split, share in regain.shares.items()
    ]


def inside_table(inside: Mapping[str, Inside]) -> Table:
    """Attention to the prompt and change of states, layer by layer."""
    headers = ["layer", *[f"{arm}: {what}" for arm in inside for what in ("attention", "change")]]
    layers = max((len(each.attention) for each in inside.values()), default=0)
    rows = [
        [str(layer), *[percent(part[layer]) for each in inside.values() for part in (each.attention, each.change)]]
        for layer in range(layers)
    ]
    return Table(headers, rows)


def to_markdown(found: Probed) -> str:
    """A report for people."""
    lines = [f"# {found.model}: displaced or lost?", "", *[f"- {line}" for line in headline(found)], "", NULL, ""]
    lines += ["## What is right again", "", *table_lines(regain_table(found.regains))]
    lines += ["## Accuracy by set of facts", "", *table_lines(accuracy_table(found.sets, found.arms))]
    lines += ["## Accuracy by how often the training text told a fact", ""]
    lines += table_lines(accuracy_table(found.frequencies, found.arms))
    if found.inside:
        lines += ["## Inside the model", "", "Share of the input's attention that goes to the prompt, and how far the "]
        lines[-1] += "prompt moves the input's states, in percent."
        lines += ["", *table_lines(inside_table(found.inside))]
    return "\n".join([*lines, *[f"- {note}" for note in found.notes]]).rstrip() + "\n"


def require_place(folder: Path) -> None:
    """Check that a report could be written, before minutes are spent on what it says.

    Raises:
        OutputError: the folder cannot be made.
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}. Choose another --output.") from error


def write(found: Probed, folder: Path) -> list[Path]:
    """Write `probe.json`, `probe.md` and, where prompts were in front of anything, `probe.png`.

    Raises:
        OutputError: a file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    paths = [folder / "probe.json", folder / "probe.md"]
    atomic_write_text(paths[0], json_text(found.to_dict()))
    atomic_write_text(paths[1], to_markdown(found))
    if found.inside:
        paths.append(folder / "probe.png")
        atomic_write_bytes(paths[-1], draw(found.inside))
    return paths


def draw(inside: Mapping[str, Inside]) -> bytes:
    """Draw attention to the prompt and change of states over the layers as PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = require_matplotlib().Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for arm, found in inside.items():
        _line(left, arm, found.attention)
        _line(right, arm, found.change)
    left.set_title("attention of the input to the prompt, %", fontsize=10)
    right.set_title("change of the input's states by the prompt, %", fontsize=10)
    left.legend(fontsize=8)
    for panel in (left, right):
        panel.set_ylim(bottom=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _line(panel: Any, label: str, shares: Sequence[float]) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.plot(range(len(shares)), [100 * share for share in shares], marker="o", markersize=4, label=label)
    panel.set_xlabel("layer", fontsize=9)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panel.spines[["top", "right"]].set_visible(False)
