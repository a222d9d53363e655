"""Small compressed checkpoints of every kind, made by the libraries that people make large ones with."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from filelock import FileLock

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel


@dataclass(frozen=True)
class Checkpoint:
    """A compressed model on disk, and what it was made from.

    Attributes:
        path: the folder or file that is loaded.
        dense: folder of the dense model.
        like: the least correlation of its logits with those of the dense model.
        method: what `ModelInfo` has to say of it, as `bits` and `group_size`.
    """

    path: Path
    dense: Path
    like: float
    method: str
    bits: int | None
    group_size: int | None


# How far a kind is from its dense model: (least correlation, method, bits, group size).
KINDS: dict[str, tuple[float, str, int | None, int | None]] = {
    "gptq": (0.9, "gptq", 4, 32),
    "gptq-3bit": (0.7, "gptq", 3, 32),
    "awq": (0.88, "awq", 4, 32),
    "w4a16": (0.98, "compressed-tensors", 4, 16),
    "w3a16": (0.93, "compressed-tensors", 3, 16),
    "w8a16": (0.999, "compressed-tensors", 8, None),
    "fp8": (0.999, "compressed-tensors", 8, None),
    "2of4-w4a16": (0.75, "compressed-tensors", 4, 16),
    "pruned": (0.75, "", None, None),
    "bnb-8bit": (0.999, "bitsandbytes", 8, None),
    "bnb-4bit": (0.85, "bitsandbytes", 4, None),
    "gguf-q8": (0.999, "gguf", 8, 32),
    "gguf-q4": (0.97, "gguf", 4, 32),
}

# Kernels of gptqmodel want groups of 32, and its AWQ rows that are multiples of 64: the reference model has neither.
_WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 4, "initializer_range": 0.14}


@pytest.fixture(scope="session")
def checkpoint(tiny_lm: Callable[..., LanguageModel], tmp_path_factory: Any) -> Callable[[str], Checkpoint]:
    """A factory: `checkpoint("gptq")`. Each kind is made once, also where several processes share the tests."""
    shared: Path = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent

    def make(kind: str) -> Checkpoint:
        out = shared / "checkpoints" / kind
        out.parent.mkdir(exist_ok=True)
        with FileLock(out.with_suffix(".lock")):
            dense = _dense(kind, out.parent, tiny_lm)
            if not out.exists():
                part = out.with_suffix(".part")
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                make_checkpoint(kind, dense, part)
                part.rename(out)
        path = next(out.glob("*.gguf"), out)
        return Checkpoint(path, dense, *KINDS[kind])

    return make


def _dense(kind: str, folder: Path, tiny_lm: Callable[..., LanguageModel]) -> Path:
    """The model that a kind is made from."""
    from idp.model.aliases import resolve

    if not kind.startswith(("gptq", "awq")):
        return Path(resolve("reference-dense").source)
    wide = folder / f"{kind}-dense"
    if not wide.exists():
        save(tiny_lm(**_WIDE), wide)
    return wide


def save(lm: LanguageModel, folder: Path, **options: Any) -> Path:
    """Save a model with its tokenizer."""
    lm.model.save_pretrained(folder, **options)
    lm.tokenizer.save_pretrained(folder)
    return folder


def make_checkpoint(kind: str, dense: Path, out: Path) -> None:
    """Compress the model in `dense` into `out`, an empty folder."""
    if kind.startswith(("gptq", "awq")):
        by_gptqmodel(dense, out, method=kind[:4].rstrip("-"), bits=3 if kind.endswith("3bit") else 4)
        return
    if kind.startswith("bnb"):
        _by_bitsandbytes(dense, out, kind)
        return
    from idp.model.load import load

    lm = load(dense, "cpu", "float32")
    if kind.startswith("gguf"):
        write_gguf(lm, dense, out / f"{kind}.gguf", "Q8_0" if kind.endswith("q8") else "Q4_0")
        return
    if kind in ("2of4-w4a16", "pruned"):
        prune(lm)
    if kind != "pruned":
        _by_llmcompressor(lm, kind.removeprefix("2of4-"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Attempting to save a model with offloaded modules")
        save(lm, out, **({} if kind == "pruned" else {"save_compressed": True}))


def by_gptqmodel(dense: Path, out: Path, method: str = "gptq", bits: int = 4) -> None:
    """Write a checkpoint in AutoGPTQ's or AutoAWQ's format, in groups of 32; `out` and all above it exist."""
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
    from transformers import AutoTokenizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPTQMODEL_CPU_WORKERS", "2")  # it would not start on two cores
        patch.chdir(out.parent)  # it writes a log into the folder it is called from
        # Packing in Python: the default compiles C++ for half a minute.
        settings = {"group_size": 32, "device": "cpu", "pack_impl": "original", "offload_to_disk": False}
        of_method = {"format": "gptq"} if method == "gptq" else {"format": "gemm", "quant_method": "awq"}
        model = GPTQModel.load(str(dense), QuantizeConfig(bits=bits, **settings, **of_method))
        generator = torch.Generator().manual_seed(0)
        rows = [torch.randint(3, 384, (1, 32), generator=generator) for _ in range(16)]
        backend = BACKEND.AUTO if method == "gptq" else BACKEND.AWQ_TORCH
        asked = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows]
        model.quantize(asked, batch_size=4, backend=backend)
        model.save(str(out))
    AutoTokenizer.from_pretrained(dense).save_pretrained(out)


def _by_bitsandbytes(dense: Path, out: Path, kind: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    config = BitsAndBytesConfig(**(four if kind.endswith("4bit") else {"load_in_8bit": True}))
    where = {"dtype": torch.float32, "device_map": {"": "cpu"}}
    AutoModelForCausalLM.from_pretrained(dense, quantization_config=config, **where).save_pretrained(out)
    AutoTokenizer.from_pretrained(dense).save_pretrained(out)


def _by_llmcompressor(lm: LanguageModel, kind: str) -> None:
    """Round to the nearest, which needs no text; done to the model itself."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier

    weights = {
        "w4a16": {"num_bits": 4, "strategy": "group", "group_size": 16},
        "w3a16": {"num_bits": 3, "strategy": "group", "group_size": 16},
        "w8a16": {"num_bits": 8, "strategy": "channel"},
        "fp8": {"num_bits": 8, "strategy": "channel", "type": "float"},
    }[kind]
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))
    oneshot(model=lm.model, recipe=QuantizationModifier(config_groups={"all": scheme}, ignore=["lm_head"]))


@torch.no_grad()
def prune(lm: LanguageModel) -> None:
    """Set the two smallest of every four weights of the layers to zero."""
    for name, weight in lm.model.named_parameters():
        if "layers" in name and weight.ndim == 2:
            quads = weight.view(-1, 4)
            quads.scatter_(1, quads.abs().topk(2, dim=1, largest=False).indices, 0)


def write_gguf(lm: LanguageModel, dense: Path, file: Path, kind: str, **flags: bool) -> None:
    """Write a LLaMA as llama.cpp's converter does, matrices whose rows fill whole blocks quantised.

    Args:
        lm: the model.
        dense: its folder, for the merges of the tokenizer.
        file: to write.
        kind: a type of ggml, such as `Q4_0`.
        flags: `add_bos_token`.
    """
    import gguf

    config, packed = lm.model.config, gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(file, "llama")
    heads = config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // heads)
    writer.add_vocab_size(config.vocab_size)
    _write_tokenizer(writer, lm, json.loads((dense / "tokenizer.json").read_text()), **flags)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in lm.model.state_dict().items():
        values = tensor.numpy()
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if "q_proj" in name or "k_proj" in name:  # llama.cpp keeps the halves of a head's rotation side by side
            count = heads if "q_proj" in name else config.num_key_value_heads
            values = values.reshape(count, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        target = names.get_name(name, try_suffixes=(".weight",))
        if "proj" in name and values.shape[1] % gguf.GGML_QUANT_SIZES[packed][0] == 0:
            writer.add_tensor(target, gguf.quants.quantize(values, packed), raw_dtype=packed)
        else:
            writer.add_tensor(target, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_tokenizer(writer: Any, lm: LanguageModel, content: dict[str, Any], add_bos_token: bool = True) -> None:
    tokenizer, special = lm.tokenizer, {token["id"] for token in content["added_tokens"]}
    ids = range(len(tokenizer))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokenizer.convert_ids_to_tokens(each) for each in ids])
    writer.add_token_types([3 if each in special else 1 for each in ids])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(add_bos_token)
