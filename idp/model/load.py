"""Loading a model by alias, folder or hub id."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from idp.errors import MissingExtraError, ModelError
from idp.model.aliases import ModelSpec, resolve
from idp.model.device import resolve_device, resolve_dtype
from idp.model.fingerprint import settle
from idp.model.gradients import has_gradients
from idp.model.loaded import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["attempt", "load", "load_trainable", "quiet_progress", "require_loadable"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_REASON = 240  # characters

_NEEDS = {
    "gptq": (("gptqmodel", "optimum"), "gptq"),
    "awq": (("gptqmodel",), "gptq"),
    "compressed-tensors": (("compressed_tensors",), None),
    "bitsandbytes": (("bitsandbytes",), None),
}
"""Quantisation method -> modules needed to load it, and our extra that brings them."""


def load(
    name: str | os.PathLike[str] | ModelSpec, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> LanguageModel:
    """Load a causal language model and its tokenizer.

    Only safetensors weights are read, and no code that comes with a model is run.

    Args:
        name: an alias (`idp/model/aliases.yaml`), a folder, a hub id, or what `resolve` made of one.
        device: `"auto"`, or anything `torch.device` takes.
        dtype: `"auto"` (the alias's own, else float32 on a CPU without bfloat16 hardware, else bfloat16), or a
            type's name.

    Returns:
        The model on its device, in evaluation mode, with weights that ask for no gradients.

    Raises:
        ModelError: unknown name, no model in the folder, hub not reachable, or a model that cannot be loaded.
        MissingExtraError: the model's quantisation needs a package that is not installed.

    Example:
        >>> lm = load("reference-dense", device="cpu")  # doctest: +SKIP
        >>> lm.max_length  # doctest: +SKIP
        512
    """
    lm = _read(name, device, dtype)
    if quantization_method(lm.model.config):
        settle(lm.model)  # selectors look at the weights before the first pass
    return lm


def load_trainable(
    name: str | os.PathLike[str] | ModelSpec, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> LanguageModel:
    """Load a model through which prompts can be tuned, where that is possible; arguments and errors as for `load`.

    gptqmodel's kernels for CPUs pack their weights at the first pass, for good, unless that pass wants gradients. So
    such a model is read twice. Its fingerprint is that of the model as `load` gives it: prompts tuned here fit there.

    Example:
        >>> lm = load_trainable("org/model-gptq", device="cpu")  # doctest: +SKIP
    """
    lm = load(name, device, dtype)
    if has_gradients(lm):
        return lm
    fingerprint = lm.fingerprint
    del lm  # two do not have to fit into memory
    again = _read(name, device, dtype)
    has_gradients(again)  # its first pass
    again.fingerprint = fingerprint
    return again


def _read(
    name: str | os.PathLike[str] | ModelSpec, device: str | torch.device, dtype: str | torch.dtype
) -> LanguageModel:
    """Load a model that was never run."""
    spec = name if isinstance(name, ModelSpec) else resolve(name)
    target = resolve_device(device)
    kind = resolve_dtype(spec.dtype if dtype == "auto" else dtype, target)
    with quiet_progress():
        config = attempt(spec, "configuration", lambda: _load_config(spec.source))
        require_extras(spec.name, config)
        tokenizer = attempt(spec, "tokenizer", lambda: _load_tokenizer(spec.source))
        model = attempt(spec, "weights", lambda: _load_model(spec.source, target, kind))
    logger.info("loaded %s from %s on %s in %s", spec.name, spec.source, target, kind)
    return LanguageModel(model, tokenizer, spec.name)


def require_loadable(spec: ModelSpec) -> None:
    """Find out whether a model is there and what it needs is installed; its weights are neither read nor downloaded.

    Raises:
        ModelError: there is no such model, or the hub cannot be reached for it.
        MissingExtraError: its quantisation needs a package that is not installed.
    """
    with quiet_progress():
        require_extras(spec.name, attempt(spec, "configuration", lambda: _load_config(spec.source)))


def require_extras(name: str, config: PreTrainedConfig) -> None:
    """Check that what a quantised model needs is installed, before gigabytes are downloaded.

    Raises:
        MissingExtraError: it is not.
    """
    method = quantization_method(config)
    modules, extra = _NEEDS.get(method, ((), None))
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        command = f"pip install 'idp[{extra}]'" if extra else f"pip install {' '.join(missing)}"
        raise MissingExtraError(f"{name} is quantised with {method}, which needs {' and '.join(missing)}: {command}")


def quantization_method(config: PreTrainedConfig) -> str:
    """Return `"gptq"`, `"compressed-tensors"` ..., or an empty string for a model that is not quantised."""
    settings: Any = getattr(config, "quantization_config", None) or {}
    method = settings.get("quant_method", "") if isinstance(settings, dict) else settings.quant_method
    return str(getattr(method, "value", method))


def _load_config(source: str) -> PreTrainedConfig:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(source, trust_remote_code=False)


def _load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    return tokenizer


def _load_model(source: str, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    # Weights go straight to an accelerator; on the CPU there is nothing to place.
    placement = {} if device.type == "cpu" else {"device_map": {"": device}}
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, use_safetensors=True, trust_remote_code=False, **placement
    )
    return model


def attempt(spec: ModelSpec, what: str, read: Callable[[], T]) -> T:
    """Call `read`, and turn whatever `transformers` raises into one line that says what to do.

    Raises:
        ModelError: what is read is not there, cannot be reached, is broken, or does not fit into memory.
        MissingExtraError: a package is missing.
    """
    try:
        return read()
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{spec.name} does not fit into the memory of the device; try --device cpu.") from error
    except ImportError as error:
        raise MissingExtraError(f"the {what} of {spec.name} need a package that is missing: {_brief(error)}") from error
    # `from_pretrained` documents OSError, and in practice raises nearly anything for a file it cannot read.
    except Exception as error:
        raise ModelError(_explain(spec, what, error)) from error


def _explain(spec: ModelSpec, what: str, error: Exception) -> str:
    kind = type(error).__name__ + type(error.__cause__ or error.__context__ or error).__name__
    if Path(spec.source).is_dir():
        return f"cannot read the {what} of the model in {spec.source}: {_brief(error)}"
    if Path(spec.source).is_absolute():
        return f"{spec.name} is not installed: {spec.source} is missing. Install idp again, or run `make reference`."
    if "Gated" in kind:
        return f"{spec.source} is gated: accept its licence on huggingface.co/{spec.source} and run `hf auth login`."
    if "RepositoryNotFound" in kind:
        return f"{spec.source} is neither a folder here nor a public model on the Hugging Face hub; check the name."
    if any(sign in kind for sign in ("LocalEntryNotFound", "Connect", "Timeout", "Offline", "ProxyError", "HTTPError")):
        return f"the Hugging Face hub cannot be reached for {spec.source}, and no copy is cached here: {_brief(error)}"
    return f"cannot load the {what} of {spec.source}: {_brief(error)}"


def _brief(error: BaseException) -> str:
    """Return an error's message on one line of bounded length, or its kind if it has no message."""
    return textwrap.shorten(str(error), width=_LONGEST_REASON, placeholder=" ...") or type(error).__name__


@contextlib.contextmanager
def quiet_progress() -> Iterator[None]:
    """Silence the progress bars of downloads and of loading where nobody watches them (a pipe, a log file)."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    silence = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if silence:
        disable_progress_bars()
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if silence:
            enable_progress_bars()
            transformers_logging.enable_progress_bar()
