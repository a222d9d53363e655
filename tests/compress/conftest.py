"""Fixtures of compression tests: a small dense model in a folder, and text to calibrate on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

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
    """A factory: the folder of a tiny dense model of an architecture."""
    made: dict[str, Path] = {}

    def make(architecture: str = "llama") -> Path:
        if architecture not in made:
            made[architecture] = tmp_path_factory.mktemp("dense") / architecture
            lm = tiny_lm(architecture)
            lm.model.save_pretrained(made[architecture])
            lm.tokenizer.save_pretrained(made[architecture])
        return made[architecture]

    return make
