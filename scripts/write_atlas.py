"""Write the data files of the atlas tasks: tuning facts as training split, evaluation (or unseen) facts as test split.

python scripts/write_atlas.py
"""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Annotated

import typer

from idp.files import atomic_write_bytes
from idp.reference.exams import EXAMS, Item, exam
from idp.reference.world import Split, build_world
from idp.resources import eval_dir

TEST_ITEMS = {"text": 100}
TRAIN_ITEMS = {"text": 50}


def packed(items: list[Item]) -> bytes:
    """Items as gzip-compressed JSON lines, without a time stamp."""
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(lines.encode())
    return buffer.getvalue()


def main(
    out: Annotated[Path | None, typer.Option(help="Folder of the data files.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the world and the choice of items.")] = 0,
    test: Annotated[int, typer.Option(help="Items a test split.")] = 500,
    train: Annotated[int, typer.Option(help="Items a training split.")] = 250,
) -> None:
    """Write every task's files."""
    folder = out or eval_dir() / "tasks" / "atlas" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    world = build_world(seed)
    for task in EXAMS:
        held_out: Split = "unseen" if task == "control" else "evaluation"
        atomic_write_bytes(
            folder / f"{task}_test.jsonl.gz", packed(exam(world, task, held_out, TEST_ITEMS.get(task, test), seed))
        )
        if task != "control":
            items = exam(world, task, "tuning", TRAIN_ITEMS.get(task, train), seed)
            atomic_write_bytes(folder / f"{task}_train.jsonl.gz", packed(items))
    typer.echo(f"wrote {len(list(folder.glob('*.jsonl.gz')))} files to {folder}")


if __name__ == "__main__":
    typer.run(main)
