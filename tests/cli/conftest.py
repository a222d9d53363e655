"""Fixtures of the command line's tests: a saved tiny model, banks, and two ways to run `idp`."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt

if TYPE_CHECKING:
    from typer.testing import Result

    from idp.model.loaded import LanguageModel

    Run = Callable[..., Result]
    Start = Callable[..., subprocess.Popen[str]]

CONTEXT = 512


@pytest.fixture(autouse=True)
def _leave_no_trace(tmp_path: Path) -> Iterator[None]:
    """Undo what a command does to its process, which in a test is ours; keep fitted selectors out of the home."""
    environment, ours = dict(os.environ), logging.getLogger("idp")
    handlers, propagate = list(ours.handlers), ours.propagate
    os.environ["IDP_CACHE"] = str(tmp_path / "cache")
    with warnings.catch_warnings():
        yield
    ours.handlers[:], ours.propagate = handlers, propagate
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


@pytest.fixture
def idp_command() -> Run:
    """Run a command in this process: `idp_command("eval", "--limit", 4)`."""
    from idp.cli.main import app

    def run(*args: object, stdin: str | bytes | None = None, columns: int = 100) -> Result:
        environment = {"COLUMNS": str(columns), "TERM": "dumb"}
        return CliRunner().invoke(app, [str(arg) for arg in args], input=stdin, env=environment)

    return run


@pytest.fixture
def start_idp() -> Start:
    """Start a command as a process of its own, as a user does."""

    def start(*args: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "idp", *(str(arg) for arg in args)]
        pipe = subprocess.PIPE
        # Started in the background, the tests ignore Ctrl-C, and their children would inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, encoding="utf-8", cwd=Path.cwd())
        finally:
            signal.signal(signal.SIGINT, before)

    return start


@pytest.fixture(scope="session")
def lm(tiny_lm: Callable[..., LanguageModel]) -> LanguageModel:
    return tiny_lm("llama", max_position_embeddings=CONTEXT)


@pytest.fixture(scope="session")
def model_folder(lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved(lm, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def other_model_folder(tiny_lm: Callable[..., LanguageModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    other = tiny_lm("llama", seed=1, max_position_embeddings=CONTEXT)
    return _saved(other, tmp_path_factory.mktemp("models") / "other")


def _saved(lm: LanguageModel, folder: Path) -> Path:
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bank_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = [Prompt("river", text="The river runs past the mill. "), Prompt("town", text="A town by the sea. ")]
    return PromptBank(prompts).save(tmp_path_factory.mktemp("banks") / "text")
