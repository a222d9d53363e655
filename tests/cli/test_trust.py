"""What models may do is asked for on the command line: reading pickles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

Run = Callable[..., Any]

COMMANDS = {
    "eval": ["eval", "--tasks", "atlas_easy", "--arms", "compressed", "--limit", 1, "--no-fit"],
    "generate": ["generate", "The river", "-n", 1],
    "build": ["bank", "build", "--method", "texts"],
}


@pytest.fixture
def pickled(model_folder: Path, tmp_path: Path) -> Path:
    """The tiny model with its weights in a pickle."""
    folder = tmp_path / "pickled"
    folder.mkdir()
    for file in model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pickle_is_read_when_asked_for(
    idp_command: Run, pickled: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*COMMANDS[command], "--model", pickled, "--device", "cpu", "--dtype", "float32"]
    refused = idp_command(*arguments)
    assert refused.exit_code == 1
    assert "--allow-pickle" in refused.stderr
    asked = idp_command(*arguments, "--allow-pickle")
    if command == "build":  # a build of nothing ends where its model was loaded
        assert "there is nothing to tune on" in asked.stderr
    else:
        assert asked.exit_code == 0, asked.output
