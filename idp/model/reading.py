"""Reading a model's parts with `transformers`: configuration, tokenizer and weights."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from idp.errors import ModelError
from idp.model.attempt import attempt, quiet_progress
from idp.model.cached import cached_folder, require_space
from idp.model.compression import settings_beside
from idp.model.device import resolve_device, resolve_dtype
from idp.model.gguf_file import GgufHead, read_head
from idp.model.loaded import LanguageModel
from idp.model.needs import quantization_method, require_extras, require_known
from idp.model.spec import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["loadable_config", "read_config", "read_lm", "read_model", "read_tokenizer", "reading"]

logger = logging.getLogger(__name__)


def read_lm(spec: ModelSpec, device: str | torch.device, dtype: str | torch.dtype) -> LanguageModel:
    """Read a model whose files are here or on the hub; it was never run.

    Raises:
        ModelError: no room for it, or it cannot be read.
        MissingExtraError: its quantisation needs a package that is not installed.
    """
    target = resolve_device(device)
    kind = resolve_dtype(spec.dtype if dtype == "auto" else dtype, target)
    with reading(spec):
        config = loadable_config(spec)
        require_space(spec)
        tokenizer = attempt(spec, "tokenizer", lambda: read_tokenizer(spec, config))
        model = attempt(spec, "weights", lambda: read_model(spec, config, target, kind))
    logger.info("loaded %s from %s on %s in %s", spec.name, spec.source, target, kind)
    return LanguageModel(model, tokenizer, spec.name)


def loadable_config(spec: ModelSpec) -> PreTrainedConfig:
    """Read the configuration of a model that can be loaded here.

    Raises:
        ModelError: there is none, or its quantisation is of an unknown kind.
        MissingExtraError: its quantisation needs a package that is not installed.
    """
    config = attempt(spec, "configuration", lambda: read_config(spec))
    method = quantization_method(config)
    require_known(spec.name, method)
    require_extras(spec.name, method)
    return config


@contextmanager
def reading(spec: ModelSpec) -> Iterator[None]:
    """Read a model's parts within it: without chatter, fast, and of a GGUF file the head once for all of them.

    Raises:
        MissingExtraError: it is a GGUF file, and the package gguf is not installed.
    """
    with _uncollected(), quiet_progress():
        if spec.gguf is None:
            yield
            return
        require_extras(spec.name, "gguf")
        from idp.model.gguf_reader import quick_gguf

        with quick_gguf():
            yield


@contextmanager
def _uncollected() -> Iterator[None]:
    """Hold back the garbage collector while transformers is imported: it would look at all of it again and again.

    Not at later loads: then there may be a former model that it has to take away.
    """
    held = gc.isenabled() and "transformers.modeling_utils" not in sys.modules
    if held:
        gc.disable()
    try:
        yield
    finally:
        if held:
            gc.enable()


def read_config(spec: ModelSpec) -> PreTrainedConfig:
    """Read the configuration; of a GGUF model from the head of its file."""
    from transformers import AutoConfig

    _gguf_head(spec)  # what is broken is told here, before transformers stumbles over it
    config = AutoConfig.from_pretrained(spec.source, trust_remote_code=spec.trust_remote_code, **_file(spec))
    if not quantization_method(config) and (settings := settings_beside(Path(spec.source))):
        config.quantization_config = settings
    return config


def read_tokenizer(spec: ModelSpec, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """Read the tokenizer; of a GGUF model the one beside its file, else the one in it."""
    from transformers import AutoTokenizer

    beside = spec.gguf is not None and (Path(spec.source) / "tokenizer_config.json").is_file()
    inside = {} if beside else _file(spec)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        spec.source, config=config, trust_remote_code=spec.trust_remote_code, **inside
    )
    if inside:
        _mend(tokenizer, config)
        _begin(tokenizer, spec)
    return tokenizer


def _begin(tokenizer: PreTrainedTokenizerBase, spec: ModelSpec) -> None:
    """Put the first token in front of a text where the file says so, which transformers does not look at."""
    head = _gguf_head(spec)
    if head is not None and head.adds_bos is not None:
        tokenizer.add_bos_token = head.adds_bos


def _gguf_head(spec: ModelSpec) -> GgufHead | None:
    """The head of a model's GGUF file; None where it has none, or none that is here."""
    folder = None if spec.gguf is None else cached_folder(spec)
    file = None if folder is None else folder / str(spec.gguf)
    return read_head(file) if file is not None and file.is_file() else None


def _mend(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Set the tokens that begin and end a text: transformers 5.17 takes one for the other when it reads GGUF."""
    for name in ("bos_token", "eos_token"):
        token = getattr(config, f"{name}_id", None)
        if isinstance(token, int):
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(token))


def read_model(spec: ModelSpec, config: PreTrainedConfig, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Read the weights.

    Raises:
        ModelError: weights that the architecture has are not in the files.
    """
    from transformers import AutoModelForCausalLM

    model, told = AutoModelForCausalLM.from_pretrained(
        spec.source,
        config=config,
        dtype=dtype,
        trust_remote_code=spec.trust_remote_code,
        output_loading_info=True,
        **_safely(spec),
        **_file(spec),
        **_placement(config, device),
        **_unpacked(spec),
    )
    _require_all(spec, told["missing_keys"])
    if device.type == "cpu" and quantization_method(config) == "bitsandbytes":
        _keep_as_stored(model)
    made: PreTrainedModel = model
    return made


def _file(spec: ModelSpec) -> dict[str, Any]:
    return {} if spec.gguf is None else {"gguf_file": spec.gguf}


def _safely(spec: ModelSpec) -> dict[str, Any]:
    """Safetensors alone, unless a pickle was asked for: then plain tensors alone."""
    return {"weights_only": True} if spec.allow_pickle else {"use_safetensors": True}


def _placement(config: PreTrainedConfig, device: torch.device) -> dict[str, Any]:
    """Put weights straight onto an accelerator; on a CPU only bitsandbytes has to be told, as it would take a GPU."""
    if device.type == "cpu" and quantization_method(config) != "bitsandbytes":
        return {}
    return {"device_map": {"": device}}


def _unpacked(spec: ModelSpec) -> dict[str, Any]:
    """GGUF is unpacked: its kernels are code from a hub, and no gradient goes through them."""
    if spec.gguf is None:
        return {}
    from transformers import GgufConfig

    return {"quantization_config": GgufConfig(dequantize=True)}


def _require_all(spec: ModelSpec, missing: Any) -> None:
    """Refuse a model of which weights are missing: transformers would draw them at random, with a warning."""
    if missing:
        raise ModelError(
            f"the files of {spec.name} lack {len(missing)} of the weights that its architecture has, such as "
            f"{min(missing)}: they are of another model, or in a format that transformers does not read."
        )


def _keep_as_stored(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights at the first pass, which it does on CPUs with AVX-512.

    What is repacked takes no gradients, fails on widths that are no multiple of 64, and comes back changed when the
    state dict is read, so the fingerprint would not be that of the same model elsewhere.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
