"""The program as a whole: help, version, where --debug may stand, and that nothing heavy is imported early."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import idp

HEAVY = ("torch", "transformers", "lm_eval", "datasets", "numpy", "scipy", "tokenizers", "safetensors")


def test_help_names_every_command(idp_command: Callable[..., Any]) -> None:
    result = idp_command("--help")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("eval", "generate", "list", "bank", "--debug", "--version"))


@pytest.mark.parametrize("command", ["eval", "generate", "list"])
def test_help_of_a_command_explains_every_option(idp_command: Callable[..., Any], command: str) -> None:
    result = idp_command(command, "-h")
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert "--debug" in result.stdout


def test_eval_has_the_documented_options(idp_command: Callable[..., Any]) -> None:
    text = idp_command("eval", "--help", columns=200).stdout
    for (
        option
    ) in "model dense bank suite tasks arms limit batch-size device dtype seed output-dir no-fit fit-items".split():
        assert f"--{option}" in text
    assert all(f"--{option}" in text for option in ("data-dir", "allow-mismatch", "fresh", "json", "debug"))


def test_version(idp_command: Callable[..., Any]) -> None:
    assert idp_command("--version").stdout == f"idp {idp.__version__}\n"


def test_without_a_command_help_is_shown(idp_command: Callable[..., Any]) -> None:
    result = idp_command()
    assert result.exit_code == 2
    assert "Usage" in result.output


def test_unknown_command_is_a_usage_error(idp_command: Callable[..., Any]) -> None:
    result = idp_command("evla")
    assert result.exit_code == 2
    assert "evla" in result.stderr


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = (
        "import sys; from idp.cli.main import run; sys.argv[1:] = ['--help']\ntry: run()\nfinally: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    imported = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert imported.isdisjoint(HEAVY)
    # Processor time, because on a busy machine the clock on the wall says little.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize("place", ["before", "after", "nowhere"])
def test_debug_may_stand_before_or_after_the_command(idp_command: Callable[..., Any], place: str) -> None:
    flag = ["--debug"]
    arguments = [
        *(flag if place == "before" else []),
        "eval",
        "--model",
        "ruference",
        *(flag if place == "after" else []),
    ]
    result = idp_command(*arguments)
    assert result.exit_code == 1
    assert ("Traceback" in result.stderr) == (place != "nowhere")
    assert result.stderr.splitlines()[-1].startswith("error: unknown model 'ruference'")


def test_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "idp", "--version"], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.startswith("idp ")
