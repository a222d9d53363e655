"""Tiny pairs of models: one, and what a known change made of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from idp.model.loaded import LanguageModel

Changed = Callable[..., LanguageModel]


@pytest.fixture(scope="session")
def changed() -> Changed:
    """A copy of a model; every matrix of the layers named is changed by noise of a share of its norm."""

    def make(lm: LanguageModel, share: float, *layers: int) -> LanguageModel:
        model = copy.deepcopy(lm.model)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for layer in layers:
                for weight in model.get_decoder().layers[layer].parameters():
                    if weight.ndim == 2:
                        noise = torch.randn(weight.shape, generator=generator)
                        weight += share * noise * weight.norm() / noise.norm()
        return LanguageModel(model, lm.tokenizer, "changed")

    return make


@pytest.fixture
def rows() -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(0)
    return [tuple(row) for row in torch.randint(3, 384, (5, 24), generator=generator).tolist()]


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("The river runs past the old mill and the miller counts his sacks. " * 40)
    return str(path)


@pytest.fixture
def quiz(tmp_path: Path) -> Path:
    path = tmp_path / "quiz.jsonl"
    path.write_text(
        '{"question": "Who?", "choices": ["Ann", "Bo", "Cy"], "answer": 1, "kind": "people"}\n'
        '{"question": "What?", "choices": ["a mill", "a town"], "answer": 0, "kind": "things"}\n'
        '{"question": "Who else?", "choices": ["Ann", "Bo"], "answer": 0, "kind": "people"}\n'
    )
    return path
