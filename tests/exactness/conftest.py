"""The models every invariant is tested on: eleven architectures, and checkpoints of two compression libraries."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from checkpoints import by_gptqmodel, save
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.dynamic.model import DynamicPromptModel
from idp.model.loaded import LanguageModel
from idp.run.inputs import pad_left
from idp.select.registry import get_selector

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ARCHITECTURES = "llama opt gpt2 bloom gpt_neox mistral qwen2 qwen3 phi3 gemma2 gemma3".split()
CHECKPOINTS = ["gptq", "gptq-kernel", "compressed-tensors"]
WINDOWED: dict[str, dict[str, Any]] = {
    "mistral": {},
    "phi3": {},
    "gemma2": {},
    "gemma3": {},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "max_window_layers": 1},
}

FP32 = 1e-5
# gptqmodel's kernel for CPUs rounds activations to bfloat16 whatever the model's type is. Two ways of computing one
# row differ by 1e-7 before the rounding; where that falls on another side, by 2^-8 after it, and by up to 0.03 in the
# logits, in one row of twenty. A model whose first pass wants gradients, as tuning a prompt does, keeps to unpacked
# weights and the model's own type: so the same checkpoint is tested without that kernel too, to the last digit.
ROUNDED = 0.1

# Twice as wide as the other models: groups of 32 weights have to fit. The spread keeps the logits at the same size.
_WIDE = {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.14}


@dataclass(frozen=True)
class Subject:
    """A model with its bank, and how closely two ways of computing the same logits agree on it."""

    lm: LanguageModel
    bank: PromptBank
    atol: float

    @property
    def is_exact(self) -> bool:
        """Whether the model computes in fp32 throughout, so that equal logits give equal tokens."""
        return self.atol <= FP32

    @property
    def prompted(self) -> DynamicPromptModel:
        return DynamicPromptModel(self.lm, self.bank, get_selector("none"))

    def close(self, got: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(got, expected, atol=self.atol, rtol=0)


@pytest.fixture(scope="session", params=[*ARCHITECTURES, *CHECKPOINTS])
def subject(request, tiny_lm, mixed_bank) -> Subject:
    """Every model there is."""
    if request.param in CHECKPOINTS:
        return _checkpoint(request, tiny_lm, mixed_bank)
    lm = tiny_lm(request.param)
    return Subject(lm, mixed_bank(lm), FP32)


def _checkpoint(request, tiny_lm, mixed_bank) -> Subject:
    from transformers import AutoModelForCausalLM

    folder = request.getfixturevalue(request.param.removesuffix("-kernel").replace("-", "_"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lm = LanguageModel(model, tiny_lm().tokenizer, request.param)
    if request.param == "gptq":
        lm.model(inputs_embeds=torch.zeros(1, 1, lm.hidden_size, requires_grad=True))
    return Subject(lm, mixed_bank(lm), ROUNDED if request.param == "gptq-kernel" else FP32)


@pytest.fixture(scope="session", params=list(WINDOWED))
def short_sighted(request, tiny_lm, mixed_bank) -> Subject:
    """Models of which some or all layers see 8 tokens back, fewer than most rows have."""
    lm = tiny_lm(request.param, sliding_window=8, **WINDOWED[request.param])
    return Subject(lm, mixed_bank(lm), FP32)


@pytest.fixture(scope="session", params=ARCHITECTURES)
def eager_subject(request, tiny_lm, mixed_bank) -> Subject:
    """Every architecture with the attention that multiplies matrices; by default all but bloom fuse it (sdpa)."""
    lm = tiny_lm(request.param, attn_implementation="eager")
    return Subject(lm, mixed_bank(lm), FP32)


@pytest.fixture(scope="session")
def gptq(tiny_lm, tmp_path_factory) -> Path:
    """A checkpoint in AutoGPTQ's format: 4 bits, groups of 32."""
    folder = tmp_path_factory.mktemp("gptq")
    save(tiny_lm(**_WIDE), folder / "dense")
    (folder / "gptq").mkdir()
    by_gptqmodel(folder / "dense", folder / "gptq")
    return folder / "gptq"


@pytest.fixture(scope="session")
def compressed_tensors(tiny_lm, tmp_path_factory) -> Path:
    """A checkpoint of packed 4-bit weights in groups of 32, written by compressed-tensors."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme

    folder = tmp_path_factory.mktemp("compressed-tensors")
    model = copy.deepcopy(tiny_lm(**_WIDE).model)
    scheme = preset_name_to_scheme("W4A16", ["Linear"])
    scheme.weights.group_size = 32
    config = QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"])
    apply_quantization_config(model, config, show_progress=False)
    _round_to_nearest(model)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))
    return folder


def _round_to_nearest(model: PreTrainedModel) -> None:
    """Choose the scale of each group of weights by its extremes."""
    from compressed_tensors.quantization import QuantizationStatus
    from compressed_tensors.quantization.utils import calculate_qparams

    for module in model.modules():
        if (scheme := getattr(module, "quantization_scheme", None)) is not None:
            groups = module.weight.unflatten(-1, (-1, scheme.weights.group_size))  # (out, groups, 32)
            scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), scheme.weights)
            module.weight_scale.data.copy_(scale)
            module.quantization_status = QuantizationStatus.FROZEN


@pytest.fixture(scope="session")
def padded() -> Callable[[Sequence[Sequence[int]], str], tuple[Tensor, Tensor]]:
    """Make a batch of rows, padded on the side asked for: ids and mask, `(B, T)` each."""

    def pad(rows: Sequence[Sequence[int]], side: str) -> tuple[Tensor, Tensor]:
        if side == "left":
            return pad_left(rows, 0)
        ids, mask = pad_left([row[::-1] for row in rows], 0)
        return ids.flip(-1), mask.flip(-1)

    return pad
