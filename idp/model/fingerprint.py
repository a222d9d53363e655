"""What identifies a model: two models with the same fingerprint take the same soft prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from idp.bank.fingerprint import Fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["fingerprint", "settle", "tensors_hash", "tokenizer_hash"]

_SAMPLED_VALUES = 1 << 18
"""Weights that enter the hash, at most, over all tensors together (with a floor per tensor)."""

_MIN_VALUES_PER_TENSOR = 64
_DIGITS = 16


def fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Fingerprint:
    """Describe a model well enough to tell whether a tuned bank fits it.

    The weights' hash covers the name and shape of every tensor of the `state_dict` and an evenly strided sample of
    its values, about 2^18 in all, so that a 7-billion-parameter model takes seconds. Floating-point values enter by
    their signs (negative, zero, positive): rounding changes none, so a checkpoint has one hash in whatever type it
    is loaded, while compression and training change many. Integers enter as they are.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer. The padding token does not count, since programs set it as they need it.

    Returns:
        The fingerprint; its two hashes are the first 16 hexadecimal digits of a SHA-256.

    Example:
        >>> fingerprint(model, tokenizer).architecture  # doctest: +SKIP
        'LlamaForCausalLM'
    """
    return Fingerprint(
        architecture=type(model).__name__,
        hidden_size=embedding_width(model),
        vocab_size=int(model.config.get_text_config().vocab_size),
        tokenizer=tokenizer_hash(tokenizer),
        weights=weights_hash(model),
    )


def embedding_width(model: PreTrainedModel) -> int:
    """Return the width of an input embedding, which for a few models (OPT-350m) is not the hidden size."""
    # The module is called, not read: some models scale or project inside it.
    embeddings = model.get_input_embeddings()
    with torch.no_grad():
        return int(embeddings(torch.zeros(1, 1, dtype=torch.long, device=model.device)).shape[-1])


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the hash of the vocabulary and of the tokens that begin, end and stand in for unknown text."""
    special = {name: str(getattr(tokenizer, name) or "") for name in ("bos_token", "eos_token", "unk_token")}
    described = json.dumps([tokenizer.get_vocab(), special], sort_keys=True)
    return hashlib.sha256(described.encode("utf-8")).hexdigest()[:_DIGITS]


def weights_hash(model: PreTrainedModel) -> str:
    """Return the hash of every tensor's name, shape and sampled values."""
    settle(model)
    return tensors_hash(model.state_dict())


def tensors_hash(tensors: Mapping[str, Any]) -> str:
    """Return the hash of every tensor's name, shape and sampled values; what is no tensor does not count."""
    state = sorted(tensors.items())
    per_tensor = max(_MIN_VALUES_PER_TENSOR, _SAMPLED_VALUES // max(1, len(state)))
    digest = hashlib.sha256()
    for name, value in state:
        if isinstance(value, Tensor):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(_sample(value, per_tensor))
    return digest.hexdigest()[:_DIGITS]


@torch.no_grad()
def settle(model: PreTrainedModel) -> None:
    """Run one token through the model: some quantised ones unpack their weights at the first pass."""
    model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)


def _sample(tensor: Tensor, count: int) -> bytes:
    """Return the bytes of about `count` evenly spaced values of a tensor of any shape and type."""
    flat = tensor.detach().reshape(-1)  # (numel,)
    # An odd step does not walk down one column of a matrix whose width is a power of two.
    step = max(1, flat.numel() // count) | 1
    values = flat[::step].cpu()  # (about count,)
    if values.is_floating_point():
        values = values.float().sign().to(torch.int8)
    return values.contiguous().view(torch.uint8).numpy().tobytes()
