"""Checkpoints of every kind that people compress models with are loaded, run, tuned through and described."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from checkpoints import KINDS, save, write_gguf

import idp
from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import ModelError
from idp.model.aliases import resolve
from idp.model.gradients import has_gradients
from idp.model.info import measured, model_info
from idp.model.load import load, load_trainable

IDS = torch.tensor([[0, 40, 50, 60, 70, 80]])  # (1, T)


@pytest.fixture(params=KINDS)
def made(request, checkpoint):
    return checkpoint(request.param)


@torch.no_grad()
def logits(lm):
    return lm.model(input_ids=IDS, use_cache=False).logits[0].float()  # (T, V)


def likeness(one, other):
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def test_it_computes_nearly_what_the_dense_model_does(made):
    dense, found = logits(load(made.dense, "cpu", "float32")), logits(load(made.path, "cpu", "float32"))
    assert found.isfinite().all()
    assert not torch.equal(found, dense)
    assert likeness(found, dense) > made.like


def test_it_has_one_fingerprint_in_every_type(made):
    prints = [load(made.path, "cpu", dtype).fingerprint for dtype in ("float32", "float32", "bfloat16")]
    assert prints[0] == prints[1] == prints[2]
    assert prints[0].weights != load(made.dense, "cpu").fingerprint.weights


def test_prompts_are_put_in_front_of_it_and_can_be_tuned(made):
    lm = load_trainable(made.path, "cpu", "float32")
    assert has_gradients(lm)
    assert lm.fingerprint == load(made.path, "cpu", "float32").fingerprint
    bank = PromptBank([Prompt("town", text="A town by the sea. ")])
    prompted = idp.wrap(lm.model, lm.tokenizer, bank=bank, selector="none")
    under, bare = prompted.score_prompts(["The river"], [[" runs"]])[0]
    assert under.isfinite() and under != bare


def test_it_is_described(made):
    info = model_info(resolve(made.path))
    assert (info.compression.method, info.compression.bits) == (made.method, made.bits)
    assert info.compression.group_size == made.group_size
    told = measured(info, load(made.path, "cpu", "float32"))
    assert told.memory_bytes == pytest.approx(info.held.bytes(4), rel=0.15)
    assert told.dtype == "float32" and told.fingerprint is not None
    files = [made.path] if made.path.is_file() else list(made.path.glob("*.safetensors"))
    assert info.disk_bytes == sum(file.stat().st_size for file in files)


@pytest.fixture
def of_old(checkpoint, tmp_path):
    """A GPTQ checkpoint as the first AutoGPTQ wrote it: the settings in a file of their own."""
    shutil.copytree(checkpoint("gptq").path, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    settings = config.pop("quantization_config")
    settings.pop("quant_method")
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "quantize_config.json").write_text(json.dumps(settings))
    return tmp_path


def test_settings_of_gptq_are_read_from_a_file_of_their_own(checkpoint, of_old):
    lm = load(of_old, "cpu", "float32")
    assert lm.fingerprint == load(checkpoint("gptq").path, "cpu", "float32").fingerprint
    info = model_info(resolve(of_old))
    assert (info.compression.method, info.compression.bits, info.compression.group_size) == ("gptq", 4, 32)


@pytest.mark.parametrize(("content", "message"), [("{", "cannot be read"), ("[4]", "holds no settings")])
def test_settings_that_cannot_be_read_are_an_error(of_old, content, message):
    (of_old / "quantize_config.json").write_text(content)
    with pytest.raises(ModelError, match=f"quantize_config.json {message}"):
        load(of_old)


def test_weights_of_another_name_are_named(of_old):
    (of_old / "model.safetensors").rename(of_old / "gptq_model-4bit-32g.safetensors")
    with pytest.raises(ModelError, match=r"called gptq_model-4bit-32g.safetensors: call them model.safetensors"):
        load(of_old, "cpu")


def test_a_gguf_file_reads_text_as_the_dense_model_does(checkpoint, tmp_path):
    made = checkpoint("gguf-q8")
    dense, lm = load(made.dense, "cpu", "float32"), load(made.path, "cpu")
    text = "Question: Who is the eldest child of the Stuvurns?\nAnswer:"
    assert lm.tokenizer(text)["input_ids"] == dense.tokenizer(text)["input_ids"]
    assert (lm.tokenizer.bos_token, lm.tokenizer.eos_token) == (dense.tokenizer.bos_token, dense.tokenizer.eos_token)
    write_gguf(dense, made.dense, tmp_path / "bare.gguf", "F16", add_bos_token=False)
    bare = load(tmp_path, "cpu")  # a folder with one file is as good
    assert bare.tokenizer(text)["input_ids"] == dense.tokenizer(text)["input_ids"][1:]
    assert model_info(resolve(tmp_path)).describe() == "gguf, F16, F32"


def test_the_tokenizer_beside_a_gguf_file_comes_first(checkpoint, tmp_path):
    made = checkpoint("gguf-q4")
    file = tmp_path / made.path.name
    file.write_bytes(made.path.read_bytes())
    load(made.dense, "cpu").tokenizer.save_pretrained(tmp_path)
    assert load(file, "cpu").fingerprint.tokenizer == load(made.dense, "cpu").fingerprint.tokenizer


def test_a_gguf_file_that_was_cut_off_is_named(checkpoint, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(checkpoint("gguf-q4").path.read_bytes()[:300_000])
    for read in (lambda: load(cut, "cpu"), lambda: model_info(resolve(cut))):
        with pytest.raises(ModelError, match=r"cut\.gguf.* cut off"):
            read()


def test_sparse_storage_that_nothing_reads_any_more_is_refused(tiny_lm, tmp_path):
    """Tensors under other names would leave the model's own weights at random values."""
    lm = tiny_lm()
    state = {name.replace("proj.weight", "proj.compressed"): value for name, value in lm.model.state_dict().items()}
    save(lm, tmp_path, state_dict=state)
    with pytest.raises(ModelError, match="lack 14 of the weights"):
        load(tmp_path, "cpu")


def test_a_group_size_without_a_kernel_is_one_line(checkpoint, monkeypatch):
    from idp.model import load as loading

    def no_kernel(model):
        raise RuntimeError("expect qGroupSize to be 32, 64, 128 or 256,\ngot 16")

    monkeypatch.setattr(loading, "settle", no_kernel)
    with pytest.raises(ModelError, match="cannot be run on this device: expect qGroupSize to be 32, .* got 16"):
        load(checkpoint("w4a16").path, "cpu")
