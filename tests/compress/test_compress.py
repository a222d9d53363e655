from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
import yaml

from idp.compress import compress as compressing
from idp.compress.calibration import Calibration
from idp.compress.compress import compress
from idp.errors import ModelError, OutputError, RecipeError
from idp.files import sha256_of
from idp.model.info import folder_info
from idp.model.load import load
from idp.model.spec import ModelSpec


def test_what_is_written(dense_folder, some_text, tmp_path):
    made = compress(dense_folder(), "gptq:bits=3", tmp_path / "m", calibration=some_text)
    names = {path.name for path in (tmp_path / "m").iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "recipe.yaml",
        "compression.json",
        "README.md",
    } <= names
    report = json.loads((tmp_path / "m" / "compression.json").read_text())
    assert report == json.loads(json.dumps(made.to_dict()))
    assert report["perplexity_after"] != report["perplexity_before"] > 1
    assert made.bytes_after == folder_info(tmp_path / "m").disk_bytes < made.bytes_before
    assert made.parameters == sum(value.numel() for value in load(dense_folder(), "cpu", "float32").model.parameters())
    assert made.seconds_per_million == pytest.approx(1e6 * made.seconds / made.parameters)
    steps = yaml.safe_load((tmp_path / "m" / "recipe.yaml").read_text())
    assert list(steps["compression_stage"]["quantization_modifiers"]) == ["GPTQModifier"]
    assert not list(tmp_path.glob(".*"))


def test_the_card_says_how_it_was_made(dense_folder, some_text, tmp_path):
    made = compress(dense_folder(), "flexround:bits=2,iterations=4", tmp_path / "m", calibration=some_text, seed=9)
    card = (tmp_path / "m" / "README.md").read_text()
    for said in (
        "base_model: llama",
        f"| perplexity | {made.perplexity_before:.3f} | {made.perplexity_after:.3f} |",
        f"sha256 {made.calibration['digest']}",
        "`flexround:bits=2,iterations=4`",
        "bits=2",
        "seed: 9",
        "llmcompressor ",
        "| 1 | ",
        "compressed-tensors, 2 bits",
    ):
        assert said in card
    assert str(tmp_path) not in card and str(dense_folder()) not in card


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_it_is_stored_in_the_type_of_the_dense_checkpoint(dense_folder, some_text, tmp_path, dtype):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(dense_folder()).to(dtype).save_pretrained(tmp_path / "dense")
    AutoTokenizer.from_pretrained(dense_folder()).save_pretrained(tmp_path / "dense")
    made = compress(tmp_path / "dense", "wanda", tmp_path / "m", calibration=some_text)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype="auto").dtype == dtype
    assert made.bytes_before == dtype.itemsize * made.parameters
    assert made.kind == "50% of the weights are zero"


def test_a_folder_that_holds_something_is_left_alone(dense_folder, some_text, tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        compress(dense_folder(), "rtn", tmp_path, calibration=some_text)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_is_replaced_when_that_is_asked_for(dense_folder, some_text, tmp_path):
    compress(dense_folder(), "rtn", tmp_path / "m", calibration=some_text)
    before = sha256_of(tmp_path / "m" / "model.safetensors")
    compress(dense_folder(), "rtn:bits=2", tmp_path / "m", calibration=some_text, overwrite=True)
    assert sha256_of(tmp_path / "m" / "model.safetensors") != before


@pytest.mark.parametrize("when", ["carry_out", "save", "model_card"])
def test_an_interruption_leaves_nothing_behind(dense_folder, some_text, tmp_path, monkeypatch, when):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(compressing, when, interrupt)
    with pytest.raises(KeyboardInterrupt):
        compress(dense_folder(), "rtn", tmp_path / "m", calibration=some_text)
    assert not list(tmp_path.iterdir())


def test_too_little_space_is_found_before_anything_is_computed(dense_folder, some_text, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 1000))
    monkeypatch.setattr(compressing, "carry_out", pytest.fail)
    with pytest.raises(OutputError, match=r"not enough space .* \d+\.\d kB are needed.*--output"):
        compress(dense_folder(), "rtn", tmp_path / "deep" / "m", calibration=some_text)
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_quantised_already_is_refused(some_text, tmp_path):
    with pytest.raises(RecipeError, match="quantised already .compressed-tensors.: compress the dense model"):
        compress("reference-gptq", "rtn", tmp_path / "m", calibration=some_text)


def test_a_pruned_model_may_be_quantised(some_text, tmp_path):
    recipe = "flexround:bits=4,iterations=3"
    made = compress("reference-sparse", recipe, tmp_path / "m", calibration=Calibration(rows=4, held_out=2))
    assert made.kind.startswith("compressed-tensors, 4 bits, groups of 16")
    assert made.zeros > 0.599  # zeros stay, and a few small weights join them


@pytest.mark.parametrize(
    ("model", "recipe", "kind"),
    [("nowhere", "rtn", ModelError), ("reference-dense", "nothing", RecipeError)],
)
def test_unknown_names_are_found_before_anything_is_loaded(model, recipe, kind, some_text, tmp_path, monkeypatch):
    monkeypatch.setattr(compressing, "load", pytest.fail)
    with pytest.raises(kind):
        compress(model, recipe, tmp_path / "m", calibration=some_text)


def test_a_model_of_another_kind_of_layers_is_refused(dense_folder, some_text, tmp_path):
    with pytest.raises(RecipeError, match=r"no torch\.nn\.Linear layers"):
        compress(dense_folder("gpt2"), "rtn", tmp_path / "m", calibration=some_text)
    assert not (tmp_path / "m").exists()


def test_stages_are_told_in_their_order(dense_folder, some_text, tmp_path, watcher):
    told = watcher()
    compress(dense_folder(), "wanda", tmp_path / "m", calibration=some_text, observer=told)
    assert [stage[0] for stage in told.stages] == [
        "loading the dense model",
        "perplexity of the dense model",
        "compressing",
        "saving",
        "perplexity of the compressed model",
    ]
    assert [stage[1:] for stage in told.stages if stage[1]] == [[4, 4], [2, 2], [4, 4]]


def test_who_comes_second_does_not_replace_what_came_first(dense_folder, some_text, tmp_path, monkeypatch):
    def quicker(made):
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "first").write_text("mine")
        return "a card"

    monkeypatch.setattr(compressing, "model_card", quicker)
    with pytest.raises(OutputError, match="exists already"):
        compress(dense_folder(), "rtn", tmp_path / "m", calibration=some_text)
    assert [path.name for path in tmp_path.rglob("*")] == ["m", "first"]


def test_a_gguf_file_is_refused(some_text, tmp_path):
    spec = ModelSpec("small.gguf", str(tmp_path), gguf="small.gguf")
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch, pytest.raises(RecipeError, match="is a GGUF file, quantised already"):
        patch.setattr(compressing, "load", pytest.fail)
        compress(spec, "rtn", tmp_path / "m", calibration=some_text)


@pytest.mark.parametrize("scale", [1e5, float("nan")], ids=["overflow", "NaN"])
def test_a_model_without_usable_numbers(dense_folder, some_text, tmp_path, scale):
    broken = load(dense_folder(), "cpu", "float32")
    with torch.no_grad():
        broken.model.model.norm.weight.mul_(scale)
    broken.model.save_pretrained(tmp_path / "broken")
    broken.tokenizer.save_pretrained(tmp_path / "broken")
    if scale == scale:
        made = compress(tmp_path / "broken", "rtn", tmp_path / "m", calibration=some_text)
        assert made.perplexity_before == float("inf")
        assert json.loads((tmp_path / "m" / "compression.json").read_text())["perplexity_before"] is None
    else:
        with pytest.raises(ModelError, match="computed NaN"):
            compress(tmp_path / "broken", "rtn", tmp_path / "m", calibration=some_text)


def test_a_recipe_that_cannot_be_read_is_found_before_anything_is_measured(
    dense_folder, some_text, tmp_path, monkeypatch
):
    monkeypatch.setattr(compressing, "perplexity", pytest.fail)
    path = tmp_path / "mine.yaml"
    path.write_text("a_stage: {b_modifiers: {NoSuchModifier: {}}}")
    with pytest.raises(RecipeError, match="NoSuchModifier"):
        compress(dense_folder(), str(path), tmp_path / "m", calibration=some_text)


def test_what_cannot_be_loaded_again_is_not_kept(dense_folder, some_text, tmp_path, monkeypatch):
    real = compressing.load

    def load_or_fail(model, **options):
        if isinstance(model, Path):
            raise ModelError(f"the files of {model} lack weights.")
        return real(model, **options)

    monkeypatch.setattr(compressing, "load", load_or_fail)
    with pytest.raises(RecipeError, match="cannot be loaded, so it is not kept: the files of the result lack weights"):
        compress(dense_folder(), "rtn", tmp_path / "m", calibration=some_text)
    assert not list(tmp_path.iterdir())
