"""What compression cost, as tables, Markdown and files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from idp.evaluate.damage.picture import draw
from idp.evaluate.damage.probes import Accuracy
from idp.evaluate.damage.result import Damage
from idp.files import atomic_write_bytes, atomic_write_text, json_text, require_free
from idp.report.words import p_text
from idp.stats.resampling import Interval

__all__ = ["footnotes", "knowledge_table", "layer_table", "prediction_lines", "require_place", "to_markdown", "write"]

FILES = ("damage.json", "damage.md", "damage.png")

_MOST_NAMED = 8


def percent(share: float | None) -> str:
    """A share in percent: tiny ones with one digit that is not 0, and 0 only where it is.

    Example:
        >>> percent(0.1234), percent(0.0000123), percent(0.0), percent(None)
        ('12.3', '0.001', '0', '-')
    """
    if share is None or math.isnan(share):
        return "-"
    if share == 0 or math.isinf(share):
        return "0" if share == 0 else "inf"
    return f"{100 * share:.1f}" if abs(share) >= 0.001 else f"{100 * share:.1g}"


def layer_table(damage: Damage) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: a row a layer, and one for all; errors in percent."""
    read, kinds = damage.reading, damage.kinds
    names = [kind.removesuffix("_proj") for kind in kinds]
    headers = ["layer", "output", *(["own"] if read.own else []), "weights", *names]
    rows = []
    for layer in damage.layers:
        outputs = [read.path[layer], *([read.own[layer]] if read.own else [])]
        weights = [damage.weight_error(layer), *(damage.weight_error(layer, kind) for kind in kinds)]
        rows.append([str(layer), *map(percent, [*outputs, *weights])])
    blank = [""] * (2 if read.own else 1)
    total = [damage.weight_error(), *(damage.weight_error(None, kind) for kind in kinds)]
    return headers, [*rows, ["all", *blank, *map(percent, total)]]


def prediction_lines(damage: Damage) -> list[tuple[str, str]]:
    """What became of the predictions: names and values."""
    read = damage.reading
    tokens = read.rows * (read.row_tokens - 1)
    return [
        ("text", f"{damage.text}; {read.rows} rows of {read.row_tokens} tokens, {tokens:,} predicted"),
        ("KL(dense || compressed)", f"{_number(read.kl.value)} nats a token{_bounds(read.kl, _number)}"),
        ("same first choice", f"{percent(read.same.value)} % of tokens{_bounds(read.same, percent)}"),
        ("perplexity", f"{read.dense_perplexity:.3f} dense, {read.compressed_perplexity:.3f} compressed"),
    ]


def _number(value: float) -> str:
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}"


def _bounds(interval: Interval, shown: Callable[[float], str]) -> str:
    """The 95 % interval behind a value; a single row has none."""
    return "" if math.isnan(interval.low) else f" [{shown(interval.low)}, {shown(interval.high)}]"


def knowledge_table(damage: Damage, depth: int = 2) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: a row for all labels down to a depth, the narrower indented; in percent and points."""
    headers = ["questions", "number", "dense", "compressed", "difference [95 %]", "p"]
    return headers, [_asked(row) for row in damage.knowledge if len(row.labels) <= depth]


def _asked(row: Accuracy) -> list[str]:
    found = row.difference
    return [
        "  " * (len(row.labels) - 1) + row.labels[-1],
        str(row.questions),
        percent(row.dense),
        percent(row.compressed),
        f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]",
        p_text(row.p),
    ]


def footnotes(damage: Damage) -> list[str]:
    """What a reader of the tables must know."""
    lines = ["the two compute the same: every difference is 0."] if damage.is_none else []
    own = "; own: with this block alone compressed" if damage.reading.own else ""
    lines.append(
        "errors in percent of the dense model's values. output: what each block gives on the text, with all blocks up "
        f"to it compressed{own}. weights: all matrices of the layer, and each."
    )
    lines.append(f"asked: {damage.asked}." if damage.knowledge else f"{damage.asked}")
    if damage.knowledge:
        lines.append("p is that of one row alone: of twenty rows without any difference one is below 0.05.")
    return [*lines, *_uncompared(damage)]


def _uncompared(damage: Damage) -> list[str]:
    """Matrices without a counterpart, some by name and the others by number."""
    every = damage.uncompared
    lines = [f"not compared: layer {each.layer}, {each.name} ({each.reason})." for each in every[:_MOST_NAMED]]
    return lines + ([f"not compared: {len(every) - _MOST_NAMED} more matrices."] if len(every) > _MOST_NAMED else [])


def to_markdown(damage: Damage) -> str:
    """A report for people; it expects the picture beside it."""
    lines = [f"# What compression did: {damage.compressed} against {damage.dense}", ""]
    lines += [f"- {name}: {value}" for name, value in prediction_lines(damage)]
    lines += [f"- numbers: {damage.dtype}, seed {damage.seed}"]
    lines += ["", "![errors by layer](damage.png)", "", "## Layers", "", *_markdown(*layer_table(damage)), ""]
    if damage.knowledge:
        lines += ["## Knowledge", "", *_markdown(*knowledge_table(damage, depth=3)), ""]
    return "\n".join([*lines, *(f"- {line}" for line in footnotes(damage)), ""])


def _markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    kept = [[cell.replace("  ", "&emsp;") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (headers, ["---"] * len(headers), *kept)]


def require_place(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse to write over another report.

    Raises:
        OutputError: one of its files is there.
    """
    for name in FILES:
        require_free(folder / name, overwrite=overwrite)


def write(damage: Damage, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write `damage.json`, `damage.md` and `damage.png`, each whole or not at all; other files of the folder stay.

    Raises:
        OutputError: one of them is there, or the folder cannot be written to.
        MissingExtraError: matplotlib is not installed; nothing is written.
    """
    require_place(folder, overwrite=overwrite)
    paths = [folder / name for name in FILES]
    picture = draw(damage)
    atomic_write_text(paths[0], json_text(damage.to_dict()))
    atomic_write_text(paths[1], to_markdown(damage))
    atomic_write_bytes(paths[2], picture)
    return paths
