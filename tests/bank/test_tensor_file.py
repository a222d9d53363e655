"""Tensors are read one by one from a safetensors file, and what is wrong with the file is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from idp.bank.tensor_file import TensorFile, tensor_sha256
from idp.errors import BankError

TENSORS = {
    "float64": torch.arange(6, dtype=torch.float64).reshape(2, 3),
    "float32": torch.linspace(-1, 1, 5),
    "bfloat16": torch.ones(3, 1, dtype=torch.bfloat16) / 3,
    "int64": torch.tensor([[-1], [2**40]]),
    "bytes": torch.arange(7, dtype=torch.uint8),
    "bools": torch.tensor([True, False]),
    "scalar": torch.tensor(2.5),
    "none": torch.zeros(0, 4),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "some.safetensors", {"what": "tensors"})
    return tmp_path / "some.safetensors"


@pytest.mark.parametrize("name", TENSORS)
def test_read_and_mapped_tensors_are_those_that_were_saved(path: Path, name: str) -> None:
    file, wanted = TensorFile(path), TENSORS[name]
    places = file.places()
    assert set(places) == set(TENSORS)
    for found in (file.read(places[name]), file.map(places[name])):
        assert found.dtype is wanted.dtype
        assert found.shape == wanted.shape
        assert torch.equal(found, wanted)
    assert file.sha256(places[name]) == tensor_sha256(wanted)


def test_writing_into_a_tensor_does_not_reach_the_file(path: Path) -> None:
    before, file = path.read_bytes(), TensorFile(path)
    for found in (file.read(file.places()["float32"]), file.map(file.places()["float32"])):
        found.zero_()
    assert path.read_bytes() == before


def test_a_file_that_takes_its_place_changes_nothing(path: Path, tmp_path: Path) -> None:
    file = TensorFile(path)
    save_file({"float32": torch.zeros(5)}, tmp_path / "other")
    (tmp_path / "other").replace(path)
    assert torch.equal(file.read(file.places()["float32"]), TENSORS["float32"])


def test_a_file_that_is_cut_short_while_it_is_open(path: Path) -> None:
    file = TensorFile(path)
    places = file.places()
    first = min(places.values(), key=lambda place: place.start)
    with open(path, "rb+") as stream:
        stream.truncate(first.start + 1)
    for use in (file.read, file.map, file.sha256):
        with pytest.raises(BankError, match="some.safetensors was cut short since it was opened"):
            use(first)


@pytest.mark.parametrize("kept", [0, 7, 8, 60, -1])
def test_a_file_that_was_cut_short_before(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BankError, match="some.safetensors is not a safetensors file"):
        TensorFile(path).places()


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": 3},
        {"a": {}},
        {"a": ENTRY | {"dtype": "F7"}},
        {"a": ENTRY | {"shape": [3]}},
        {"a": ENTRY | {"shape": [-2]}},
        {"a": ENTRY | {"shape": ["2"]}},
        {"a": ENTRY | {"data_offsets": [-8, 0]}},
        {"a": ENTRY | {"data_offsets": [4, 12]}},
        {"a": ENTRY | {"data_offsets": [0]}},
    ],
)
def test_a_header_that_says_nonsense(tmp_path: Path, header: Any) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "odd").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(BankError, match="odd is not a safetensors file"):
        TensorFile(tmp_path / "odd").places()


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="cannot be read: No such file"):
        TensorFile(tmp_path / "nowhere")
