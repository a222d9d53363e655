"""Reading files of a model, with whatever goes wrong told in one line."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from idp.errors import IdpError, MissingExtraError, ModelError, brief
from idp.model.diagnosis import diagnosis
from idp.model.spec import ModelSpec

__all__ = ["ONCE", "attempt", "not_there", "quiet_progress"]

T = TypeVar("T")

ONCE = "first pass"
"""What is attempted where a model is run once to see whether it can be."""

_CHATTY = ("torchao", "torch.utils._pytree")
"""Loggers that warn while torchao is imported: of kernels for other machines, and of its own types."""

_UNREACHABLE = ("LocalEntryNotFound", "Connect", "Timeout", "Offline", "ProxyError", "HTTPError")


def attempt(spec: ModelSpec, what: str, read: Callable[[], T]) -> T:
    """Call `read`, and turn whatever `transformers` raises into one line that says what to do.

    Args:
        spec: the model.
        what: is read, in the plural: `weights`; or `ONCE`.
        read: reads it.

    Returns:
        What was read.

    Raises:
        ModelError: what is read is not there, cannot be reached, is broken, or does not fit into memory.
        MissingExtraError: a package is missing.

    Example:
        >>> attempt(ModelSpec("m", "org/m"), "weights", lambda: 3)
        3
    """
    import torch

    try:
        return read()
    except IdpError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{spec.name} does not fit into the memory of the device; try --device cpu.") from error
    except ImportError as error:
        raise MissingExtraError(f"the {what} of {spec.name} need a package that is missing: {brief(error)}") from error
    # `from_pretrained` documents OSError, and in practice raises nearly anything for a file it cannot read.
    except Exception as error:
        raise ModelError(diagnosis(spec, what, error) or _explain(spec, what, error)) from error


def _explain(spec: ModelSpec, what: str, error: Exception) -> str:
    if what == ONCE:
        return f"{spec.name} was loaded, but cannot be run on this device: {brief(error)}"
    kind = type(error).__name__ + type(error.__cause__ or error.__context__ or error).__name__
    if spec.is_local:
        here = f"cannot read the {what} of the model in {spec.source}: {brief(error)}"
        return here if Path(spec.source).is_dir() else not_there(spec)
    if "Gated" in kind:
        return f"{spec.source} is gated: accept its licence on huggingface.co/{spec.source} and run `hf auth login`."
    if "RepositoryNotFound" in kind:
        return f"{spec.source} is neither a folder here nor a public model on the Hugging Face hub; check the name."
    if any(sign in kind for sign in _UNREACHABLE):
        return _not_reached(spec, error)
    return f"cannot load the {what} of {spec.source}: {brief(error)}"


def not_there(spec: ModelSpec) -> str:
    """Say what to do about a model whose folder is missing."""
    if spec.recipe is not None:
        return f"{spec.name} is made from {spec.dense} by recipe {spec.recipe}: idp compress {spec.name}"
    if spec.origin and not spec.verified:
        return f"{spec.name} is not there: {spec.origin} says that it lies in {spec.source}."
    return f"{spec.name} is not installed: {spec.source} is missing. Install idp again, or run `make reference`."


def _not_reached(spec: ModelSpec, error: Exception) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return (
        f"the Hugging Face hub cannot be reached for {spec.source}, and no copy is in {HF_HUB_CACHE}. Where there is a "
        f"hub: {spec.download} ({brief(error)})"
    )


@contextlib.contextmanager
def quiet_progress() -> Iterator[None]:
    """Silence progress bars where nobody watches them (a pipe, a log file), and what is said as torchao is imported."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    silence = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if silence:
        disable_progress_bars()
        transformers_logging.disable_progress_bar()
    try:
        with _hushed():
            yield
    finally:
        if silence:
            enable_progress_bars()
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep back what is said of torchao's kernels and types: transformers imports it for every model."""
    if logging.getLogger().isEnabledFor(logging.INFO):  # somebody wants to read everything
        yield
        return
    former = {logger: logger.level for logger in map(logging.getLogger, _CHATTY)}
    for logger in former:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in former.items():
            logger.setLevel(level)
