"""Tests of idp.model.aliases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from idp.errors import ModelError
from idp.model.aliases import ModelSpec, aliases, read_aliases, resolve
from idp.resources import prompt_bank_dir

ENTRY = "{source: a/b, compression: none, dense: null, bank: null, verified: false, note: x}"


def test_the_promised_aliases_exist() -> None:
    assert {"reference", "reference-dense", "llama-7b-4bit", "llama-7b-3bit", "opt-6.7b-4bit"} <= set(aliases())


@pytest.mark.parametrize("name", sorted(aliases()))
def test_every_alias_is_complete(name: str) -> None:
    spec = resolve(name)
    assert spec.name == name
    assert spec.compression
    assert spec.note
    assert Path(spec.source).is_absolute() or re.fullmatch(r"[\w.-]+/[\w.-]+", spec.source)
    assert name == "reference-dense" or spec.dense
    assert spec.verified == name.startswith("reference")


@pytest.mark.parametrize("name", ["gptq", "sparse"])
def test_the_reference_models_lie_in_the_package(name: str) -> None:
    spec = resolve(f"reference-{name}")
    assert Path(spec.source).parts[-4:] == ("idp", "reference", "models", name)
    assert spec.dense == resolve("reference-dense").source
    assert spec.bank == str(prompt_bank_dir() / "tuned" / name)


def test_reference_is_one_of_the_compressed_ones() -> None:
    assert resolve("reference").source in {resolve("reference-gptq").source, resolve("reference-sparse").source}


def test_a_folder_with_a_model_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve(tmp_path) == resolve(str(tmp_path)) == ModelSpec(name=str(tmp_path), source=str(tmp_path))


def test_a_relative_folder_comes_before_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("some/model").source == "some/model"
    (tmp_path / "some" / "model").mkdir(parents=True)
    with pytest.raises(ModelError, match=re.escape("some/model holds no model")):
        resolve("some/model")


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    assert resolve("~/m").source == str(tmp_path / "m")


def test_a_hub_id_is_taken_as_it_is() -> None:
    assert resolve("Qwen/Qwen3-0.6B") == ModelSpec(name="Qwen/Qwen3-0.6B", source="Qwen/Qwen3-0.6B")


def test_an_unknown_name_gives_the_near_misses() -> None:
    with pytest.raises(ModelError, match=r"unknown model 'llama-7b-4bits'\. Did you mean 'llama-7b-4bit'"):
        resolve("llama-7b-4bits")


@pytest.mark.parametrize("name", ["", "two words", "-/x"])
def test_what_is_no_name_at_all_is_an_error(name: str) -> None:
    with pytest.raises(ModelError):
        resolve(name)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "a/b/c"])
def test_a_path_that_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        resolve(name)


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model \(no config\.json\)"):
        resolve(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "must map names"),
        ("a: b", "'a' must have exactly the fields"),
        ("a: {source: b/c}", "'a' must have exactly the fields bank, compression"),
        (f"a: {ENTRY[:-1]}, sorce: x}}", "'a' must have exactly the fields"),
    ],
)
def test_a_broken_file_of_aliases_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "aliases.yaml").write_text(content)
    with pytest.raises(ModelError, match=message):
        read_aliases(tmp_path / "aliases.yaml")


def test_a_file_of_aliases_is_read(tmp_path: Path) -> None:
    (tmp_path / "aliases.yaml").write_text(f"mine: {ENTRY}")
    spec = ModelSpec("mine", source="a/b", compression="none", note="x")
    assert read_aliases(tmp_path / "aliases.yaml") == {"mine": spec}


@pytest.mark.parametrize("name", [3, None, ["reference"]])
def test_what_is_no_name_is_refused(name: object) -> None:
    with pytest.raises(ModelError, match="alias"):
        resolve(name)  # type: ignore[arg-type]
