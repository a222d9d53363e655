"""Tests of idp.model.cached."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from idp.errors import ModelError
from idp.model.aliases import resolve
from idp.model.cached import cached_folder, has_weights, require_space
from idp.model.spec import ModelSpec

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def hub(monkeypatch):
    """A hub that has one model in two files, of which one is here."""
    asked = []

    def snapshot(source, *, allow_patterns, dry_run):
        assert dry_run
        asked.append((source, allow_patterns))
        return [
            SimpleNamespace(file_size=7_000_000_000, will_download=True),
            SimpleNamespace(file_size=5_000_000_000, will_download=False),
        ]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return asked


def test_a_folder_is_where_it_is(tmp_path):
    assert cached_folder(ModelSpec("m", str(tmp_path))) == tmp_path
    assert cached_folder(ModelSpec("m", str(tmp_path / "gone"))) is None
    assert cached_folder(ModelSpec("m", "nobody/nothing")) is None


def test_too_little_room_is_told_before_the_download(hub, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 6_900_000_000))
    with pytest.raises(ModelError, match=r"m needs 7\.0 GB for its download, and .* has 6\.9 GB free"):
        require_space(ModelSpec("m", "org/m"))
    assert hub == [("org/m", ["model*.safetensors"])]


def test_enough_room_is_enough(hub, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 7_000_000_000))
    require_space(ModelSpec("m", "org/m", allow_pickle=True))
    require_space(ModelSpec("m", "org/m", gguf="m.gguf"))
    assert [patterns for _, patterns in hub] == [["model*.safetensors", "*.bin"], ["m.gguf"]]


def test_nobody_is_asked_about_what_is_here(hub, monkeypatch, tmp_path):
    require_space(resolve("reference"))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda source, name: str(tmp_path / name))
    require_space(ModelSpec("m", "org/m"))
    assert hub == []


def test_a_hub_that_does_not_answer_is_left_to_the_download(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: pytest.fail(f"{Path(path)} was looked at"))
    require_space(ModelSpec("m", "org/m"))


@pytest.mark.parametrize(
    ("files", "here"),
    [
        ({}, False),
        ({"config.json": ""}, False),
        ({"model.safetensors": ""}, True),
        ({"pytorch_model.bin": ""}, False),
        (
            {"model.safetensors.index.json": json.dumps({"weight_map": {"w": "1.safetensors", "v": "2.safetensors"}})},
            False,
        ),
        (
            {"model.safetensors.index.json": json.dumps({"weight_map": {"w": "1.safetensors"}}), "1.safetensors": ""},
            True,
        ),
        ({"model.safetensors.index.json": "[]", "1.safetensors": ""}, False),
        ({"model.safetensors.index.json": "{", "model.safetensors": ""}, True),
    ],
)
def test_weights_are_here_if_all_of_them_are(files, here, tmp_path, monkeypatch):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert has_weights(ModelSpec("m", str(tmp_path))) == here
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda source, local_files_only: str(tmp_path))
    assert has_weights(ModelSpec("m", "org/m")) == here


def test_weights_of_a_gguf_model_are_its_file(tmp_path):
    spec = ModelSpec("m", str(tmp_path), gguf="m.gguf")
    assert not has_weights(spec)
    (tmp_path / "m.gguf").touch()
    assert has_weights(spec)
    assert not has_weights(ModelSpec("m", str(tmp_path / "gone"), gguf="m.gguf"))
    assert not has_weights(ModelSpec("m", "nobody/nothing"))
