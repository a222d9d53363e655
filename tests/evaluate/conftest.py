"""What the tests of evaluation share: tiny models on disk, a bank for them, and a cache of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.evaluate.settings import Settings
from idp.evaluate.tasks import EvalTask, load_tasks
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.select.base import Selection, Selector

ATLAS = ("easy", "hard", "support", "short", "trivia", "pair", "endings", "last_word", "text", "control")
SOME = ("atlas_easy", "atlas_trivia", "atlas_last_word", "atlas_text", "atlas_control")


class Spy(Selector):
    """Chooses by the length of an input, and remembers all it has seen."""

    name: ClassVar[str] = "spy"

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        self.seen += [tuple(ids) for ids in inputs]
        arms = len(self.bank) + 1
        return [Selection(len(ids) % arms - 1, float(len(ids)), tuple(map(float, range(arms)))) for ids in inputs]


@pytest.fixture
def spy() -> type[Spy]:
    return Spy


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def lm(tiny_lm: Callable[..., LanguageModel]) -> LanguageModel:
    return tiny_lm(max_position_embeddings=1024)


@pytest.fixture(scope="session")
def bank(lm: LanguageModel) -> PromptBank:
    """Text and soft prompts of different lengths."""
    generator = torch.Generator().manual_seed(0)
    soft = [Prompt(f"soft-{n}", embedding=0.3 * torch.randn(n, lm.hidden_size, generator=generator)) for n in (2, 6)]
    return PromptBank([Prompt("text", text="Answer with a fact: "), *soft], lm.fingerprint)


def _save(lm: LanguageModel, folder: Path) -> str:
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def compressed(lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the model that is evaluated."""
    return _save(lm, tmp_path_factory.mktemp("compressed"))


@pytest.fixture(scope="session")
def dense(tiny_lm: Callable[..., LanguageModel], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of another model, that stands for the uncompressed one."""
    return _save(tiny_lm(max_position_embeddings=1024, seed=1), tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="session")
def bank_folder(bank: PromptBank, compressed: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bank on disk, for the model as it is loaded from its folder."""
    fingerprint = load(compressed, device="cpu", dtype="float32").fingerprint
    return str(PromptBank(bank.prompts, fingerprint).save(tmp_path_factory.mktemp("bank")))


@pytest.fixture(scope="session")
def dense_bank_folder(dense: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bank of one prompt for the dense model."""
    lm = load(dense, device="cpu", dtype="float32")
    static = 0.3 * torch.randn(4, lm.hidden_size, generator=torch.Generator().manual_seed(1))
    bank = PromptBank([Prompt("static", embedding=static)], lm.fingerprint)
    return str(bank.save(tmp_path_factory.mktemp("dense-bank")))


@pytest.fixture
def tasks() -> Callable[..., list[EvalTask]]:
    """Load atlas tasks by their short names; all without any."""
    return lambda *names: load_tasks([f"atlas_{name}" for name in names or ATLAS])


@pytest.fixture
def built(tasks: Callable[..., list[EvalTask]]) -> Iterator[Callable[..., list[EvalTask]]]:
    """Load atlas tasks and build the requests of a few items."""

    def make(*names: str, limit: int = 3) -> list[EvalTask]:
        loaded = tasks(*names)
        for entry in loaded:
            entry.task.build_all_requests(limit=limit)
        return loaded

    yield make


@pytest.fixture(scope="session")
def tiny(compressed: str, dense: str, bank_folder: str, dense_bank_folder: str) -> Settings:
    """Settings of an evaluation that takes seconds; the output folder has to be given."""
    return Settings(
        model=compressed,
        dense=dense,
        dense_bank=dense_bank_folder,
        bank=bank_folder,
        tasks=SOME,
        limit=6,
        batch_size=8,
        device="cpu",
        dtype="float32",
        fit_items=12,
    )


@pytest.fixture
def settings(tiny: Settings, tmp_path: Path) -> Callable[..., Settings]:
    return lambda **changes: dataclasses.replace(tiny, **{"output_dir": tmp_path / "out", **changes})
