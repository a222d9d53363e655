"""`idp model info` as a user gives it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from idp.bank.bank import PromptBank

Run = Callable[..., Any]


def test_a_pruned_model_by_layer(idp_command: Run) -> None:
    result = idp_command("model", "info", "reference-sparse")
    assert result.exit_code == 0, result.output
    assert "compression: 60% of the weights are zero" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if line[:1].isdigit()]
    assert rows == [[str(layer), *["60%"] * 7] for layer in range(4)]


def test_json_and_what_loading_tells(idp_command: Run) -> None:
    plain = json.loads(idp_command("model", "info", "reference-gptq", "--json").stdout)
    assert (plain["method"], plain["bits"], plain["group_size"]) == ("compressed-tensors", 2, 16)
    assert plain["sparsity"] == {} and "fingerprint" not in plain
    loaded = json.loads(idp_command("model", "info", "reference-gptq", "--load", "--json", "--device", "cpu").stdout)
    fingerprint = PromptBank.load("tuned/gptq").fingerprint
    assert fingerprint is not None
    assert loaded["fingerprint"] == fingerprint.to_dict()
    assert loaded["memory_bytes"] > loaded["disk_bytes"]
    assert plain["estimated_memory_bytes"] == pytest.approx(loaded["memory_bytes"], rel=0.1)
    assert plain["dtype"] == loaded["dtype"] == "float32"


def test_a_dense_model_has_no_table_of_zeros(idp_command: Run, model_folder: Path) -> None:
    result = idp_command("model", "info", model_folder)
    assert result.exit_code == 0, result.output
    assert "not compressed" in result.stdout and "layer" not in result.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("referense", "Did you mean 'reference'"),
        ("llama-7b-4bit", "hf download TheBloke/LLaMa-7B-GPTQ"),
        ("./nowhere", "there is no folder nowhere"),
    ],
)
def test_what_is_not_there_is_one_line(idp_command: Run, name: str, message: str) -> None:
    result = idp_command("model", "info", name)
    assert result.exit_code != 0
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_a_method_that_cannot_be_loaded_is_told_of(idp_command: Run, model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "squeezed", "bits": 5}
    (folder / "config.json").write_text(json.dumps(config))
    done = idp_command("model", "info", folder)
    assert done.exit_code == 0, done.output
    assert "compression: squeezed, 5 bits" in done.stdout
    assert "note: transformers knows no method 'squeezed', so this model cannot be loaded." in done.stdout


def test_a_pickle_has_no_estimate_and_is_loaded_when_asked_for(
    idp_command: Run, model_folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    plain = idp_command("model", "info", tmp_path)
    assert plain.exit_code == 0 and "on disk" in plain.stdout and "in memory" not in plain.stdout
    refused = idp_command("model", "info", tmp_path, "--load")
    assert refused.exit_code != 0 and "--allow-pickle" in refused.stderr
    loaded = idp_command("model", "info", tmp_path, "--load", "--allow-pickle", "--device", "cpu")
    assert loaded.exit_code == 0 and "fingerprint" in loaded.stdout
