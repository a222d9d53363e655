"""Fixtures of compression tests: a small dense model in a folder, and text to calibrate on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from idp.compress.calibration import Calibration

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

SENTENCES = [
    "The river runs past the old mill and the school.",
    "Nobody ever locked a door in the small town by the sea.",
    "Question: What colour is the boat? Answer: The boat is red.",
]


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "text.txt"
    path.write_text("\n<|endoftext|>\n".join(f"{number}. {SENTENCES[number % 3]}" for number in range(60)))
    return path


@pytest.fixture(scope="session")
def some_text(text_file: Path) -> Calibration:
    return Calibration(str(text_file), rows=8, row_tokens=32, held_out=4)


@pytest.fixture(scope="session")
def dense_folder(
    tiny_lm: Callable[..., LanguageModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A factory: the folder of a tiny dense model of an architecture; config fields may be overridden."""
    made: dict[tuple[object, ...], Path] = {}

    def make(architecture: str = "llama", **overrides: Any) -> Path:
        key = (architecture, *sorted(overrides.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("dense") / architecture
            lm = tiny_lm(architecture, **overrides)
            lm.model.save_pretrained(made[key])
            lm.tokenizer.save_pretrained(made[key])
        return made[key]

    return make
