"""The commands of `idp bank` are there, and explain themselves without anything heavy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]
VECTOR = ["difference", "sum", "negate", "scale", "apply", "similarity"]
PLAIN = ["list", "show", "merge", "build", "transfer", "export", "import"]
WITHOUT_JSON = {"merge", *VECTOR} - {"similarity"}
COMMANDS = [*((name,) for name in PLAIN), *(("vector", name) for name in VECTOR)]


def test_help_names_every_command(idp_command: Run) -> None:
    assert all(name in idp_command("bank", "-h").stdout for name in (*PLAIN, "vector"))
    assert all(name in idp_command("bank", "vector", "--help").stdout for name in VECTOR)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(idp_command: Run, command: tuple[str, ...]) -> None:
    result = idp_command("bank", *command, "-h")
    assert result.exit_code == 0
    assert "--debug" in result.stdout
    assert ("--json" in result.stdout) == (
        command[-1] in {"list", "show", "build", "transfer", "export", "import", "similarity"}
    )


@pytest.mark.parametrize("command", [("bank",), ("bank", "vector")])
def test_without_a_command_help_is_shown(idp_command: Run, command: tuple[str, ...]) -> None:
    result = idp_command(*command)
    assert result.exit_code == 2
    assert "Usage" in result.output


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from idp.cli.main import run; sys.argv[1:] = ['bank', 'vector', '--help']\n"
        "try: run()\nfinally: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert imported.isdisjoint({"torch", "transformers", "peft", "numpy", "safetensors"})


def test_debug_may_stand_before_the_command(idp_command: Run) -> None:
    result = idp_command("--debug", "bank", "show", "nowhere")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
