from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

from idp.errors import ModelError
from idp.model.aliases import resolve
from idp.model.info import folder_info, model_info


@pytest.fixture
def saved(tiny_lm, tmp_path):
    """Save a tiny model whose layers' matrices were changed."""

    def save(change=lambda weight: weight, **options):
        lm = tiny_lm()
        state = {
            name: change(value.clone()) if "layers" in name and value.ndim == 2 else value
            for name, value in lm.model.state_dict().items()
        }
        lm.model.save_pretrained(tmp_path, state_dict=state, **options)
        return tmp_path

    return save


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("reference-dense", "not compressed"),
        ("reference-sparse", "60% of the weights are zero"),
        ("reference-gptq", "compressed-tensors, 2 bits, groups of 16, pack-quantized"),
    ],
)
def test_the_reference_variants(name, phrase):
    info = folder_info(Path(resolve(name).source))
    assert info.describe() == phrase
    assert info.architecture == "LlamaForCausalLM"


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "200KB"}], ids=["one file", "several"])
def test_counts_are_those_of_the_model(saved, tiny_lm, options):
    info = folder_info(saved(**options))
    parameters = {value.data_ptr(): value.numel() for value in tiny_lm().model.parameters()}
    assert info.values == sum(parameters.values())
    assert info.disk_bytes > 4 * info.values
    assert info.mean_sparsity == 0.0


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_zeros_are_counted_by_matrix(saved, share):
    def prune(weight):
        generator = torch.Generator().manual_seed(0)
        return weight * (torch.rand(weight.shape, generator=generator) >= share)

    info = folder_info(saved(prune))
    assert info.mean_sparsity == pytest.approx(share, abs=0.02)
    assert set(info.sparsity) and all("layers" in name for name in info.sparsity)
    assert info.pattern == ""


def test_two_of_four_is_seen(saved):
    def prune(weight):
        return weight * torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(weight.shape[1] // 4)

    info = folder_info(saved(prune))
    assert info.pattern == "2:4"
    assert info.describe() == "50% of the weights are zero (2:4)"


def test_a_folder_that_cannot_be_read_is_one_clear_line(saved):
    folder = saved()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cut off"):
        folder_info(folder)
    (folder / "config.json").write_text(json.dumps([1]))
    with pytest.raises(ModelError, match="holds no configuration"):
        folder_info(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        folder_info(folder)


def test_a_pickle_is_not_looked_into(saved, tiny_lm):
    folder = saved()
    (folder / "model.safetensors").unlink()
    torch.save(tiny_lm().model.state_dict(), folder / "pytorch_model.bin")
    info = folder_info(folder)
    assert info.disk_bytes == (folder / "pytorch_model.bin").stat().st_size
    assert (info.tensors, info.held) == (0, None)


@pytest.fixture
def hub(tiny_lm, tmp_path, monkeypatch):
    """A hub with one model, of which only configuration and heads can be read."""
    tiny_lm().model.save_pretrained(tmp_path, max_shard_size="50KB")
    files = {path.name: parsed(path) for path in tmp_path.glob("*.safetensors")}
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda source, name: str(tmp_path / name))
    monkeypatch.setattr(
        huggingface_hub, "get_safetensors_metadata", lambda source: SimpleNamespace(files_metadata=files)
    )
    return tmp_path


def parsed(path):
    """The head of a file as the hub's library gives it."""
    content = path.read_bytes()
    head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    tensors = {name: SimpleNamespace(**value) for name, value in head.items() if name != "__metadata__"}
    return SimpleNamespace(tensors=tensors)


def test_of_the_hub_the_heads_are_read(hub):
    info, here = model_info(resolve("org/model")), folder_info(hub)
    assert info.source == "org/model"
    assert info.describe() == "not compressed" and info.sparsity == {}
    assert (info.architecture, info.values, info.tensors) == (here.architecture, here.values, here.tensors)
    assert info.held == here.held
    assert info.disk_bytes == 4 * info.values


def test_what_is_neither_here_nor_reached_is_one_line():
    with pytest.raises(ModelError, match="hub cannot be reached for org/model, .*hf download org/model"):
        model_info(resolve("org/model"))
    with pytest.raises(ModelError, match=r"is not here; download it first: hf download org/model m\.gguf"):
        model_info(resolve("org/model/m.gguf"))
    with pytest.raises(ModelError, match="by recipe sparsegpt:sparsity=0.5: idp compress"):
        model_info(resolve("llama-7b-sparsegpt"))


def test_nearly_all_zeros_are_no_pattern(saved):
    def prune(weight):
        return weight * (torch.arange(weight.shape[1]) % 64 == 0)

    info = folder_info(saved(prune))
    assert info.pattern == "" and info.mean_sparsity > 0.9


def test_a_missing_file_of_several_is_named(saved):
    folder = saved(max_shard_size="50KB")
    gone = sorted(folder.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(ModelError, match=f"{gone.name} is missing"):
        folder_info(folder)
