"""Tests of idp.model.load."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from idp.errors import IdpError, MissingExtraError, ModelError
from idp.model import load as loading
from idp.model.aliases import ModelSpec, resolve
from idp.model.load import load, quantization_method, require_extras, require_loadable

TinyLM = Callable[..., Any]


@pytest.fixture(scope="module")
def saved(tiny_lm: TinyLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaMA in the standard files."""
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    tiny_lm().model.save_pretrained(folder)
    tiny_lm().tokenizer.save_pretrained(folder)
    return folder


def copy_with(saved: Path, target: Path, **changed: Any) -> Path:
    """Copy a saved model, replacing fields of its configuration."""
    target.mkdir()
    for file in saved.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((saved / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changed))
    return target


def test_what_was_saved_is_loaded(tiny_lm: TinyLM, saved: Path) -> None:
    lm = load(saved, device="cpu", dtype="float32")
    ids = torch.tensor([[1, 5, 6]])  # (1, T)
    assert torch.equal(lm.model(ids).logits, tiny_lm().model(ids).logits)
    assert lm.fingerprint == tiny_lm().fingerprint
    assert (lm.name, lm.dtype) == (str(saved), torch.float32)
    assert not lm.model.training


def test_the_type_may_be_chosen(saved: Path) -> None:
    assert load(saved, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_a_spec_is_loaded_under_its_name(saved: Path) -> None:
    assert load(ModelSpec("short", str(saved)), "cpu", "float32").name == "short"


@pytest.mark.parametrize("name", ["reference-dense", "reference-gptq", "reference-sparse"])
def test_the_reference_models_load_and_keep_their_fingerprint_in_every_type(name: str) -> None:
    exact, half = load(name, "cpu", "float32"), load(name, "cpu", "bfloat16")
    logits = exact.model(torch.tensor([[exact.prefix_token_id]])).logits  # (1, 1, V)
    assert torch.isfinite(logits).all()
    assert exact.fingerprint == half.fingerprint


def test_an_unknown_alias_is_an_error() -> None:
    with pytest.raises(ModelError, match="Did you mean 'reference'"):
        load("refrence")


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model"):
        load(tmp_path)


def test_a_missing_embedded_model_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="reference is not installed"):
        load(ModelSpec("reference", str(tmp_path / "gone")))


def test_a_hub_that_cannot_be_reached_is_an_error() -> None:
    with pytest.raises(ModelError, match="hub cannot be reached for nobody/nothing"):
        load("nobody/nothing")


def test_a_broken_configuration_is_an_error(saved: Path, tmp_path: Path) -> None:
    folder = copy_with(saved, tmp_path / "m")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot read the configuration"):
        load(folder)


def test_an_unknown_architecture_is_an_error(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read the configuration"):
        load(copy_with(saved, tmp_path / "m", model_type="perceptron"))


def test_a_model_that_is_no_causal_language_model_is_an_error(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read the weights"):
        load(copy_with(saved, tmp_path / "m", model_type="vit"), "cpu")


def test_missing_weights_are_an_error(saved: Path, tmp_path: Path) -> None:
    folder = copy_with(saved, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot read the weights"):
        load(folder, "cpu")


def test_pickled_weights_are_refused(tiny_lm: TinyLM, saved: Path, tmp_path: Path) -> None:
    folder = copy_with(saved, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    torch.save(tiny_lm().model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot read the weights"):
        load(folder, "cpu")


def test_broken_weights_are_an_error(saved: Path, tmp_path: Path) -> None:
    folder = copy_with(saved, tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(ModelError, match="cannot read the weights"):
        load(folder, "cpu")


def test_a_missing_tokenizer_is_an_error(saved: Path, tmp_path: Path) -> None:
    folder = copy_with(saved, tmp_path / "m")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="cannot read the tokenizer"):
        load(folder, "cpu")


def test_a_message_is_one_line(saved: Path, tmp_path: Path) -> None:
    folder = copy_with(saved, tmp_path / "m", model_type="perceptron")
    with pytest.raises(IdpError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_code_that_comes_with_a_model_is_not_run(saved: Path, tmp_path: Path) -> None:
    folder = copy_with(saved, tmp_path / "m", model_type="mine", auto_map={"AutoConfig": "mine.MineConfig"})
    (folder / "mine.py").write_text("open('ran', 'w')")
    with pytest.raises(ModelError):
        load(folder)
    assert not Path("ran").exists()


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_missing_extra_is_named(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    config = SimpleNamespace(quantization_config={"quant_method": method})
    with pytest.raises(MissingExtraError, match=rf"is quantised with {method}.*pip install 'idp\[gptq\]'"):
        require_extras("some-model", config)


def test_whether_a_model_can_be_loaded_is_found_without_its_weights(saved: Path, tmp_path: Path) -> None:
    folder = copy_with(saved, tmp_path / "m")
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    require_loadable(resolve(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot read the configuration"):
        require_loadable(resolve(folder))


def test_nothing_is_needed_for_a_plain_model() -> None:
    require_extras("some-model", SimpleNamespace())
    require_extras("some-model", SimpleNamespace(quantization_config={"quant_method": "of-next-year"}))


def test_the_quantisation_method_of_a_config_object() -> None:
    settings = SimpleNamespace(quant_method=SimpleNamespace(value="gptq"))
    assert quantization_method(SimpleNamespace(quantization_config=settings)) == "gptq"
    assert quantization_method(SimpleNamespace(quantization_config=None)) == ""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", "is gated"),
        ("RepositoryNotFoundError", "neither a folder"),
        ("Odd", "cannot load the weights"),
    ],
)
def test_what_the_hub_says_becomes_advice(kind: str, message: str) -> None:
    error = type(kind, (OSError,), {})("first line\nsecond line" + " and more" * 100)

    def read() -> None:
        raise error

    with pytest.raises(ModelError, match=message) as caught:
        loading.attempt(ModelSpec("m", "org/m"), "weights", read)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_model_too_large_for_the_device_is_an_error() -> None:
    def read() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ModelError, match="does not fit into the memory"):
        loading.attempt(ModelSpec("m", "org/m"), "weights", read)


def test_a_missing_package_is_an_error() -> None:
    def read() -> None:
        raise ImportError("needs sentencepiece")

    with pytest.raises(MissingExtraError, match="needs sentencepiece"):
        loading.attempt(ModelSpec("m", "org/m"), "tokenizer", read)


@pytest.mark.parametrize("disabled", [False, True])
def test_progress_bars_are_silent_and_then_as_before(monkeypatch: pytest.MonkeyPatch, disabled: bool) -> None:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    (disable_progress_bars if disabled else enable_progress_bars)()
    try:
        with loading.quiet_progress():
            assert are_progress_bars_disabled()
        assert are_progress_bars_disabled() == disabled
    finally:
        enable_progress_bars()


def test_a_quantised_model_is_unpacked_when_loaded():
    lm = load("reference-gptq", device="cpu")
    weight = lm.model.model.layers[0].self_attn.q_proj.weight
    assert weight.shape == (lm.hidden_size, lm.hidden_size)
