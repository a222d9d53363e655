"""Tests of idp.model.places."""

from __future__ import annotations

import pytest

from idp.errors import ModelError
from idp.model.places import Place, is_path, place_of


def test_a_gguf_file_and_a_folder_with_one_are_the_same(tmp_path):
    (tmp_path / "model.Q4_0.gguf").touch()
    expected = Place(str(tmp_path), "model.Q4_0.gguf")
    assert place_of(str(tmp_path)) == place_of(str(tmp_path / "model.Q4_0.gguf")) == expected
    (tmp_path / "config.json").touch()
    assert place_of(str(tmp_path)) == Place(str(tmp_path))  # then the other weights are meant


def test_of_several_gguf_files_one_has_to_be_named(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(ModelError, match=r"holds 2 \.gguf files: name one of them, such as .*a\.gguf"):
        place_of(str(tmp_path))


def test_another_file_is_no_model(tmp_path):
    (tmp_path / "weights.bin").touch()
    with pytest.raises(ModelError, match=r"weights\.bin is no \.gguf file"):
        place_of(str(tmp_path / "weights.bin"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("org/model", Place("org/model")),
        ("org/model/file.Q4_K_M.gguf", Place("org/model", "file.Q4_K_M.gguf")),
        ("org/model/quants/file.gguf", Place("org/model", "quants/file.gguf")),
        ("alias", None),
        ("two words", None),
    ],
)
def test_what_is_not_here_may_be_on_the_hub(text, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of(text) == place


@pytest.mark.parametrize("text", ["missing.gguf", "./org/model/file.gguf", "a/b/c"])
def test_a_path_that_is_not_there_is_an_error(text):
    assert is_path(text)
    with pytest.raises(ModelError, match="there is no folder"):
        place_of(text)
