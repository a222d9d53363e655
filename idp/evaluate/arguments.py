"""The arguments of lm-eval's `hf` model: which of them work with prompts, and what to do in place of the others.

`hf` passes over most of its arguments when it is given a model that is loaded already, as it is here. An evaluation
that silently was another one is the worst outcome, so what does not work is an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from idp.errors import IdpError, suggest
from idp.model.loaded import LanguageModel

__all__ = ["INSTEAD", "TAKEN", "check_arguments", "check_tokens", "context_length"]

TAKEN = (
    "add_bos_token",
    "chat_template_args",
    "enable_thinking",
    "max_batch_size",
    "prefix_token_id",
    "think_end_token",
)
"""Arguments that mean what they mean for `hf`, or (`max_batch_size`) cannot change a result."""

_MERGE = "merge it into the model, save that, and give its folder"
_SPREAD = "start one process a device with `accelerate launch`; each holds the whole model"
_FOUND_OUT = "what a checkpoint was quantised with is read from it; leave the argument out"

INSTEAD = {
    "autogptq": _FOUND_OUT,
    "backend": "prompts stand in front of causal models only",
    "delta": _MERGE,
    "gguf_file": "weights are read as safetensors only",
    "gptqmodel": _FOUND_OUT,
    "logits_cache": "the options of a question always share a pass; leave the argument out",
    "max_cpu_memory": _SPREAD,
    "max_memory_per_gpu": _SPREAD,
    "mixed_precision_dtype": "give dtype, the type that the model is loaded in",
    "offload_folder": _SPREAD,
    "parallelize": _SPREAD,
    "peft": _MERGE,
    "revision": "download that revision and give its folder",
    "softmax_dtype": "probabilities are always computed in float32",
    "subfolder": "download the model and give the folder it lies in",
    "tokenizer": "save the tokenizer with the model, or pass an idp.model LanguageModel of the two as pretrained",
    "tp_plan": _SPREAD,
    "truncation": "a context that is too long always loses its beginning; leave the argument out",
    "trust_remote_code": "no code that comes with a model is run",
    "use_fast_tokenizer": "the tokenizer is the one transformers chooses; leave the argument out",
}
"""Arguments of `hf` that do not work here, and what does."""

_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "backend": ("causal",),
    "softmax_dtype": ("float32", torch.float32),
}
"""Values that ask for what is done anyway; so do None and the argument's default."""


def check_arguments(given: Mapping[str, Any], own: Iterable[str]) -> None:
    """Refuse what would be passed over.

    Args:
        given: further arguments by name.
        own: names the model knows besides.

    Raises:
        IdpError: an unknown argument, or one of `hf` that does not work with prompts.
    """
    parameters = inspect.signature(HFLM).parameters
    for name, value in given.items():
        if name in TAKEN:
            continue
        if name not in INSTEAD:
            raise IdpError(f"unknown model argument {name!r}. {suggest(name, [*own, *TAKEN])}")
        default = parameters[name].default if name in parameters else None
        if value is not None and value != default and value not in _HARMLESS.get(name, ()):
            raise IdpError(f"model argument {name}={value!r} does not work with prompts: {INSTEAD[name]}.")


def check_tokens(lm: LanguageModel, add_bos_token: bool | None, prefix_token_id: int | None) -> None:
    """Refuse tokens that the model or its tokenizer does not have.

    Raises:
        IdpError: a begin token is asked for and the tokenizer sets none, or an id outside the vocabulary.
    """
    if add_bos_token and (lm.bos_token_id is None or lm.bos_token_id not in lm.tokenizer("a")["input_ids"]):
        raise IdpError(f"add_bos_token: the tokenizer of {lm.name} puts no begin token in front of a text.")
    if prefix_token_id is not None and not (isinstance(prefix_token_id, int) and 0 <= prefix_token_id < lm.vocab_size):
        raise IdpError(f"prefix_token_id must be a token id from 0 to {lm.vocab_size - 1}, not {prefix_token_id!r}.")


def context_length(lm: LanguageModel, wanted: int | None) -> int:
    """The context that may be used, prompt included: the model's, or less where that is wanted.

    Raises:
        IdpError: ``wanted`` is not a positive number, or more than the model says it can read.
    """
    if wanted is None:
        return lm.max_length
    if not isinstance(wanted, int) or wanted < 1:
        raise IdpError(f"max_length must be a positive number of tokens, not {wanted!r}.")
    if wanted > lm.max_length and lm.states_length:
        raise IdpError(
            f"max_length={wanted} is more than the {lm.max_length} tokens that {lm.name} reads; leave it out."
        )
    return min(wanted, lm.max_length)


def rows_wanted(batch_size: int | str) -> int | None:
    """The number of rows to run at once, None where it is to be found.

    Raises:
        IdpError: neither a positive number nor ``auto``.
    """
    if isinstance(batch_size, str) and batch_size.startswith("auto"):
        return None
    try:
        rows = int(batch_size)
    except ValueError:
        rows = 0
    if rows < 1:
        raise IdpError(f"batch_size must be a positive number or 'auto', not {batch_size!r}.")
    return rows
