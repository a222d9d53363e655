"""Reads the atlas tasks' data files, wherever lm-eval is started from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets

DATA = Path(__file__).parent / "data"


def load(task: str, **_metadata: Any) -> dict[str, datasets.Dataset]:
    """The splits of one task that have a file."""
    splits = {split: DATA / f"{task}_{split}.jsonl.gz" for split in ("train", "test")}
    return {split: datasets.Dataset.from_list(read(path)) for split, path in splits.items() if path.exists()}


def read(path: Path) -> list[dict[str, Any]]:
    """The items of a compressed JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
