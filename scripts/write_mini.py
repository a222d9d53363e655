"""Write the data files of the suite `mini`: short items, drawn from a folder of benchmark files (docs/suites.md).

python scripts/write_mini.py DATA
"""

from __future__ import annotations

import json
import lzma
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mode
from typing import Annotated, Any

import typer

from idp.errors import TaskError
from idp.evaluate.local.columns import SOURCES, Row, Source
from idp.evaluate.local.rows import find, read
from idp.files import atomic_write_bytes
from idp.resources import eval_dir

SPLITS = {
    "arc_easy": ("test", "train"),
    "arc_challenge": ("test", "train"),
    "hellaswag": ("validation", "train"),
    "lambada_openai": ("test", "test"),  # it has no training split: other items of the same file
    "xstorycloze_en": ("eval", "train"),
    "boolq": ("validation", "train"),
}
"""By lm-eval's names: the hub's split that is judged, and the one that is learned from."""

WORDS = 80
"""Most words of an item, options included: long ones would make an evaluation slow."""

RUN = 13
"""An item is kept out of training that has as many words in a row in common with one that is judged."""

_READ = ("context", "question", "text")


def main(
    data: Annotated[Path, typer.Argument(help="Folder of benchmark files, as for --data-dir.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the data files. Default: eval/mini.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of items.")] = 0,
    items: Annotated[int, typer.Option(help="Items a split.")] = 200,
) -> None:
    """Draw the items that are judged, then others to learn from, and write both."""
    folder = out or eval_dir() / "mini"
    judged = {
        task: draw(candidates(data, task, split), items, f"{seed}-{task}-judged", task)
        for task, (split, _) in SPLITS.items()
    }
    held_out = {run for rows in judged.values() for row in rows for run in runs(row)}
    for task, (split, other) in SPLITS.items():
        source = SOURCES[task]
        rest = [row for row in candidates(data, task, other) if held_out.isdisjoint(runs(row))]
        write(folder, source, split, judged[task])
        write(folder, source, "train", draw(rest, items, f"{seed}-{task}-train", task))
    typer.echo(f"wrote {len(list(folder.glob('*/*.jsonl.xz')))} files to {folder}")


def candidates(data: Path, task: str, split: str) -> list[Row]:
    """Different short items of a split, with the usual number of options.

    Raises:
        TaskError: the split has no file, or it cannot be read.
    """
    source = replace(SOURCES[task], columns=dict)  # rows as they are
    paths = find(data, source, split)
    if not paths:
        raise TaskError(f"there is no file {data / source.folder / source.files(split)[0]}.jsonl (plain, .xz or .gz).")
    rows = [row for path in paths for row in read(path, source, None)]
    usual = mode(options(row) for row in rows)
    short = [row for row in rows if options(row) == usual and words(row) <= WORDS]
    return list({tuple(row.get(name) for name in _READ): row for row in short}.values())


def draw(rows: Sequence[Row], count: int, seed: str, task: str) -> list[Row]:
    """As many items in an order of chance, so that the first of them are a sample too.

    Raises:
        TaskError: there are not as many.
    """
    if len(rows) < count:
        raise TaskError(f"{task!r} has {len(rows)} items of at most {WORDS} words where {count} are wanted.")
    return random.Random(seed).sample(rows, count)


def options(row: Mapping[str, Any]) -> int:
    """How many options an item has."""
    return len(row.get("choices", ()))


def words(row: Mapping[str, Any]) -> int:
    """How many words of an item a model reads, options included.

    Example:
        >>> words({"question": "Who sings?", "choices": ["a bird", "a fish"], "answer": 0})
        6
    """
    return sum(len(text.split()) for text in [*(row.get(name, "") for name in _READ), *row.get("choices", ())])


def runs(row: Mapping[str, Any]) -> set[tuple[str, ...]]:
    """All runs of words of an item's texts, but not of its options; a text that is shorter is one run."""
    texts = [re.findall(r"\w+", row[name].casefold()) for name in _READ if row.get(name)]
    return {tuple(text[start : start + RUN]) for text in texts for start in range(max(1, len(text) - RUN + 1))}


def write(folder: Path, source: Source, split: str, rows: Sequence[Row]) -> None:
    """Write one data file; the same rows make the same bytes."""
    file = folder / source.folder / f"{source.files(split)[0]}.jsonl.xz"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    atomic_write_bytes(file, lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    typer.run(main)
