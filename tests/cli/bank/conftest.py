"""Tiny banks in the current folder, and commands that succeed or fail as they should.

`dense` has its inits, `sparse` is of a model that differs in its weights; `mixed_folder` fits the tiny model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from idp.bank import Fingerprint, Prompt, PromptBank, SelectorState
from idp.bank.inits import save_with_inits

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

    Run = Callable[..., Any]

DENSE = Fingerprint("LlamaForCausalLM", 2, 384, "a" * 16, "1" * 16)


def _soft(name: str, numbers: list[list[float]], **provenance: Any) -> Prompt:
    return Prompt(name, embedding=torch.tensor(numbers, dtype=torch.float32), provenance=provenance)


@pytest.fixture(autouse=True)
def _banks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    static = _soft("static", [[1, 1], [1, 3]], init="rows", objective="answer", steps=40, held_out_loss=2.25)
    task = _soft("task", [[1, 2], [3, 4]], init="static", steps=20)
    dense = PromptBank([static, task], DENSE, {"router": SelectorState({"seed": 0})}, {"corpus": "atlas"})
    save_with_inits(dense, [_soft("rows", [[0, 0], [1, 0]])], "dense")
    sparse = replace(DENSE, weights="2" * 16)
    PromptBank([_soft("static", [[2, 1], [0, 3]], init="rows")], sparse).save("sparse")


@pytest.fixture
def done(idp_command: Run) -> Callable[..., str]:
    """Run `idp bank ...`, which has to succeed, and give what it printed."""

    def run(*arguments: object) -> str:
        result = idp_command("bank", *arguments)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    return run


@pytest.fixture
def refused(idp_command: Run) -> Callable[..., str]:
    """Run `idp bank ...`, which has to fail with one line, and give that line."""

    def run(*arguments: object) -> str:
        result = idp_command("bank", *arguments)
        assert result.exit_code == 1, result.output
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        return str(line)

    return run


def _random(name: str, width: int, seed: int) -> Prompt:
    generator = torch.Generator().manual_seed(seed)
    return Prompt(name, embedding=0.3 * torch.randn(4, width, generator=generator))


@pytest.fixture(scope="session")
def mixed_folder(lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = [
        Prompt("brief", text="Be brief. ", provenance={"kind": "instruction"}),
        _random("one", lm.hidden_size, 1),
        _random("two", lm.hidden_size, 2),
    ]
    return PromptBank(prompts, fingerprint=lm.fingerprint).save(tmp_path_factory.mktemp("banks") / "mixed")


@pytest.fixture
def read_json(idp_command: Run) -> Run:
    """Run a command with `--json` and return what it printed."""

    def run(*arguments: object) -> Any:
        result = idp_command("bank", *arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run
