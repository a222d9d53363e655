"""Whose answers lie in lm-eval's response cache.

lm-eval (`use_cache=PATH`) looks answers up by the texts of a request alone. The same texts have another answer under
another prompt, so a file says whom it belongs to, and nobody else is let in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import MutableMapping
from typing import Any

from idp.bank.tensor_file import tensor_sha256
from idp.dynamic.model import DynamicPromptModel
from idp.errors import IdpError
from idp.select.base import Selector

__all__ = ["claim", "describe"]

_OWNER = "idp"  # lm-eval's own keys are 64 hexadecimal digits


def claim(answers: MutableMapping[str, Any], owner: str) -> None:
    """Make a cache ours, or find that it is.

    Args:
        answers: lm-eval's dictionary on disk.
        owner: see `describe`.

    Raises:
        IdpError: it holds another's answers.
    """
    kept = answers.get(_OWNER)
    if kept is None and len(answers) == 0:
        answers[_OWNER] = owner
    elif kept != owner:
        raise IdpError(
            f"the answers in {getattr(answers, 'filename', 'use_cache')} are those of another model, bank, selector "
            "or model argument: give use_cache another path, one for each."
        )


def describe(prompted: DynamicPromptModel, *arguments: Any) -> str:
    """Everything that decides an answer besides the request, as one hash.

    Args:
        prompted: model, bank and selector.
        arguments: what else answers depend on.
    """
    lm, bank = prompted.lm, prompted.bank
    prompts = [prompt.digest for prompt in bank or ()]
    parts = [lm.fingerprint, str(lm.dtype), prompts, prompted.selector.name, arguments]
    return hashlib.sha256(repr(parts).encode() + (_learned(prompted.selector) if bank else b"")).hexdigest()


def _learned(selector: Selector) -> bytes:
    """A selector's options and what it has learned, as bytes; not every option is part of a state."""
    state = selector.state()
    tensors = [(name, str(tensor.dtype), tensor_sha256(tensor)) for name, tensor in sorted(state.tensors.items())]
    options = {name: value for name, value in vars(selector).items() if isinstance(value, (str, int, float))}
    return json.dumps([options, state.config, tensors], sort_keys=True, default=str).encode()
