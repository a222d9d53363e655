"""The commands in the documentation run, in the order of the page."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "banks.md"


@pytest.fixture(autouse=True)
def _questions() -> None:
    """The files that the page names."""
    for name in ("easy", "task", "few"):
        rows = [{"question": f"What is {name} {n}?", "answer": str(n)} for n in range(8)]
        Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


@pytest.mark.parametrize("heading", ["Looking at banks", "Merging", "Vectors"])
def test_the_commands_of_a_section(idp_command: Callable[..., Any], heading: str) -> None:
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    commands = "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL)).splitlines()
    assert commands
    for command in commands:
        program, *arguments = shlex.split(command, comments=True)
        assert program == "idp"
        result = idp_command(*arguments, *(["--steps", "2"] if "build" in arguments else []))  # quickly
        assert result.exit_code == 0, f"{command}: {result.output}"
