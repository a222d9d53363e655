"""Tests of idp.model.load."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from idp.errors import IdpError, MissingExtraError, ModelError
from idp.model import attempt as attempts
from idp.model.aliases import ModelSpec, resolve
from idp.model.load import load, require_loadable
from idp.model.needs import quantization_method, require_extras, require_known

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
    from huggingface_hub.constants import HF_HUB_CACHE

    with pytest.raises(ModelError, match="hub cannot be reached for nobody/nothing") as caught:
        load("nobody/nothing")
    assert "hf download nobody/nothing" in str(caught.value) and HF_HUB_CACHE in str(caught.value)


def test_a_gguf_file_of_the_hub_is_asked_for_by_name() -> None:
    with pytest.raises(ModelError, match=r"hf download nobody/nothing some\.Q4_0\.gguf"):
        load("nobody/nothing/some.Q4_0.gguf")


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


@pytest.fixture
def pickled(tiny_lm: TinyLM, saved: Path, tmp_path: Path) -> Path:
    """The tiny LLaMA with its weights in a pickle."""
    folder = copy_with(saved, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    torch.save(tiny_lm().model.state_dict(), folder / "pytorch_model.bin")
    return folder


def test_pickled_weights_are_refused(pickled: Path) -> None:
    with pytest.raises(ModelError, match=r"as a pickle \(pytorch_model\.bin\).*--allow-pickle \(allow_pickle=True\)"):
        load(pickled, "cpu")


def test_plain_tensors_of_a_pickle_are_read_when_asked_for(tiny_lm: TinyLM, pickled: Path) -> None:
    assert load(pickled, "cpu", "float32", allow_pickle=True).fingerprint == tiny_lm().fingerprint
    assert load(resolve(pickled, allow_pickle=True), "cpu", "float32").fingerprint == tiny_lm().fingerprint


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("ran", "w"))


def test_code_in_a_pickle_is_never_run(pickled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model.norm.weight": Harm()}, pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin holds more than plain tensors"):
        load(pickled, "cpu", allow_pickle=True)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def sharded(tiny_lm: TinyLM, tmp_path: Path) -> Path:
    tiny_lm().model.save_pretrained(tmp_path, max_shard_size="100KB")
    tiny_lm().tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_the_file_that_was_cut_off_is_named(sharded: Path) -> None:
    file = sorted(sharded.glob("*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=rf"{file.name} is no safetensors file, or was cut off"):
        load(sharded, "cpu")


def test_a_file_that_is_missing_is_named(sharded: Path) -> None:
    file = sorted(sharded.glob("*.safetensors"))[1]
    file.unlink()
    with pytest.raises(ModelError, match=rf"{file.name} is missing"):
        load(sharded, "cpu")


def test_broken_weights_are_an_error(saved: Path, tmp_path: Path) -> None:
    folder = copy_with(saved, tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(ModelError, match=r"model\.safetensors is no safetensors file"):
        load(folder, "cpu")


def test_an_unknown_method_is_refused_before_weights_are_read(saved: Path, tmp_path: Path) -> None:
    folder = copy_with(saved, tmp_path / "m", quantization_config={"quant_method": "gptx", "bits": 4})
    message = r"quantised with 'gptx', which transformers does not know\. Did you mean 'gptq'.*bitsandbytes"
    with pytest.raises(ModelError, match=message):
        require_loadable(resolve(folder))
    with pytest.raises(ModelError, match=message):
        load(folder, "cpu")


def test_code_that_comes_with_a_model_is_run_when_asked_for(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = copy_with(saved, tmp_path / "m", model_type="mine", auto_map={"AutoConfig": "mine.MineConfig"})
    (folder / "mine.py").write_text("raise ImportError('it was run')")
    with pytest.raises(ModelError, match=r"need code that comes with the model.*--trust-remote-code"):
        load(folder)
    with pytest.raises(IdpError, match="it was run"):
        load(folder, trust_remote_code=True)


def test_a_missing_tokenizer_is_an_error(saved: Path, tmp_path: Path) -> None:
    folder = copy_with(saved, tmp_path / "m")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="has no tokenizer. Copy its files there"):
        load(folder, "cpu")


def test_a_broken_tokenizer_is_an_error(saved: Path, tmp_path: Path) -> None:
    folder = copy_with(saved, tmp_path / "m")
    (folder / "tokenizer.json").write_text("{")
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


@pytest.mark.parametrize(("method", "extra"), [("gptq", "gptq"), ("awq", "gptq"), ("bitsandbytes", "bnb")])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, method: str, extra: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(MissingExtraError, match=rf"is quantised with {method}.*pip install 'idp\[{extra}\]'"):
        require_extras("some-model", method)


def test_whether_a_model_can_be_loaded_is_found_without_its_weights(saved: Path, tmp_path: Path) -> None:
    folder = copy_with(saved, tmp_path / "m")
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    require_loadable(resolve(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot read the configuration"):
        require_loadable(resolve(folder))


def test_nothing_is_needed_for_a_plain_model() -> None:
    require_extras("some-model", "")
    require_known("some-model", "")


def test_a_gguf_file_without_its_package_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(MissingExtraError, match="quantised with gguf, which needs gguf: pip install gguf"):
        load(tmp_path / "m.gguf")


def test_the_quantisation_method_of_a_config_object() -> None:
    settings = SimpleNamespace(quant_method=SimpleNamespace(value="gptq"))
    assert quantization_method(SimpleNamespace(quantization_config=settings)) == "gptq"
    assert quantization_method(SimpleNamespace(quantization_config=None)) == ""
    assert quantization_method(SimpleNamespace(quantization_config={"load_in_8bit": True})) == "bitsandbytes"


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
        attempts.attempt(ModelSpec("m", "org/m"), "weights", read)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_model_too_large_for_the_device_is_an_error() -> None:
    def read() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ModelError, match="does not fit into the memory"):
        attempts.attempt(ModelSpec("m", "org/m"), "weights", read)


def test_a_missing_package_is_an_error() -> None:
    def read() -> None:
        raise ImportError("needs sentencepiece")

    with pytest.raises(MissingExtraError, match="needs sentencepiece"):
        attempts.attempt(ModelSpec("m", "org/m"), "tokenizer", read)


@pytest.mark.parametrize("disabled", [False, True])
def test_progress_bars_are_silent_and_then_as_before(monkeypatch: pytest.MonkeyPatch, disabled: bool) -> None:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    (disable_progress_bars if disabled else enable_progress_bars)()
    try:
        with attempts.quiet_progress():
            assert are_progress_bars_disabled()
        assert are_progress_bars_disabled() == disabled
    finally:
        enable_progress_bars()


@pytest.mark.parametrize(("wanted", "heard"), [(logging.WARNING, False), (logging.INFO, True)])
def test_what_torchao_says_is_kept_back_unless_all_is_wanted(caplog, wanted, heard) -> None:
    with caplog.at_level(wanted), attempts.quiet_progress():
        logging.getLogger("torchao").warning("Failed to load a kernel")
        logging.getLogger("torchao").error("an error")
    logging.getLogger("torchao").warning("afterwards")
    assert ("Failed to load a kernel" in caplog.messages) == heard
    assert caplog.messages[-2:] == ["an error", "afterwards"]


def test_a_quantised_model_is_unpacked_when_loaded():
    lm = load("reference-gptq", device="cpu")
    weight = lm.model.model.layers[0].self_attn.q_proj.weight
    assert weight.shape == (lm.hidden_size, lm.hidden_size)
