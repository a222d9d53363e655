"""Loading a model by alias, folder, file or hub id."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from idp.model.aliases import ModelSpec, resolve
from idp.model.attempt import ONCE, attempt
from idp.model.cached import require_space
from idp.model.device import resolve_device, resolve_dtype
from idp.model.fingerprint import settle
from idp.model.gradients import has_gradients
from idp.model.loaded import LanguageModel
from idp.model.needs import quantization_method, require_extras, require_known
from idp.model.reading import read_config, read_model, read_tokenizer, reading

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

__all__ = ["load", "load_tokenizer", "load_trainable", "require_loadable"]

logger = logging.getLogger(__name__)

Name = str | os.PathLike[str] | ModelSpec


def load(
    name: Name,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a causal language model and its tokenizer: plain, pruned, or quantised in any format of `docs/models.md`.

    Unless asked for, only safetensors (or GGUF) weights are read, and no code that comes with a model is run.

    Args:
        name: an alias (`idp models`), a folder, a `.gguf` file, a hub id, or what `resolve` made of one.
        device: `"auto"`, or anything `torch.device` takes.
        dtype: `"auto"` (the alias's own, else on a CPU float32 unless bfloat16 is clearly faster, which is measured
            once on a machine, else bfloat16), or a type's name.
        allow_pickle: also read weights that are kept as a pickle (`pytorch_model.bin`), plain tensors only.
        trust_remote_code: also run code that comes with the model, which can do anything.

    Returns:
        The model on its device, in evaluation mode, with weights that ask for no gradients.

    Raises:
        ModelError: unknown name, no model in the folder, hub not reachable, no room for it, or a model that cannot be
            loaded or run.
        MissingExtraError: the model's quantisation needs a package that is not installed.

    Example:
        >>> lm = load("reference-dense", device="cpu")  # doctest: +SKIP
        >>> lm.max_length  # doctest: +SKIP
        512
    """
    spec = _spec(name, allow_pickle, trust_remote_code)
    lm = _read(spec, device, dtype)
    if quantization_method(lm.model.config):
        attempt(spec, ONCE, lambda: settle(lm.model))  # selectors look at the weights before the first pass
    return lm


def load_trainable(
    name: Name,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a model through which prompts can be tuned, where that is possible; arguments and errors as for `load`.

    gptqmodel's kernels for CPUs pack their weights at the first pass, for good, unless that pass wants gradients. So
    such a model is read twice. Its fingerprint is that of the model as `load` gives it: prompts tuned here fit there.

    Example:
        >>> lm = load_trainable("org/model-gptq", device="cpu")  # doctest: +SKIP
    """
    spec = _spec(name, allow_pickle, trust_remote_code)
    lm = load(spec, device, dtype)
    if has_gradients(lm):
        return lm
    fingerprint = lm.fingerprint
    del lm  # two do not have to fit into memory
    again = _read(spec, device, dtype)
    has_gradients(again)  # its first pass
    again.fingerprint = fingerprint
    return again


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer alone.

    Raises:
        ModelError: there is no such model, or no tokenizer that can be read.
        MissingExtraError: the model needs a package that is not installed.
    """
    with reading(spec):
        config = _config(spec)
        return attempt(spec, "tokenizer", lambda: read_tokenizer(spec, config))


def require_loadable(spec: ModelSpec) -> None:
    """Find out whether a model is there and what it needs is installed; its weights are neither read nor downloaded.

    Raises:
        ModelError: there is no such model, or the hub cannot be reached for it.
        MissingExtraError: its quantisation needs a package that is not installed.
    """
    with reading(spec):
        _config(spec)


def _spec(name: Name, allow_pickle: bool, trust_remote_code: bool) -> ModelSpec:
    """The model, with what was asked for here added to what its spec allows."""
    spec = name if isinstance(name, ModelSpec) else resolve(name)
    return replace(
        spec,
        allow_pickle=spec.allow_pickle or allow_pickle,
        trust_remote_code=spec.trust_remote_code or trust_remote_code,
    )


def _read(spec: ModelSpec, device: str | torch.device, dtype: str | torch.dtype) -> LanguageModel:
    """Load a model that was never run."""
    target = resolve_device(device)
    kind = resolve_dtype(spec.dtype if dtype == "auto" else dtype, target)
    with reading(spec):
        config = _config(spec)
        require_space(spec)
        tokenizer = attempt(spec, "tokenizer", lambda: read_tokenizer(spec, config))
        model = attempt(spec, "weights", lambda: read_model(spec, config, target, kind))
    logger.info("loaded %s from %s on %s in %s", spec.name, spec.source, target, kind)
    return LanguageModel(model, tokenizer, spec.name)


def _config(spec: ModelSpec) -> PreTrainedConfig:
    """The configuration of a model that can be loaded here."""
    config = attempt(spec, "configuration", lambda: read_config(spec))
    method = quantization_method(config)
    require_known(spec.name, method)
    require_extras(spec.name, method)
    return config
