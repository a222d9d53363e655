"""Give a compressed language model back what it lost: one prompt per input, chosen from a bank.

The names below are imported when first used, so `import idp` is quick and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idp.bank.bank import PromptBank
    from idp.bank.prompt import Prompt
    from idp.dynamic.model import DynamicPromptModel
    from idp.dynamic.wrap import wrap
    from idp.errors import IdpError
    from idp.model.load import load
    from idp.select.base import Selection, Selector
    from idp.select.registry import get_selector

__version__ = "0.1.0"

__all__ = [
    "DynamicPromptModel",
    "IdpError",
    "Prompt",
    "PromptBank",
    "Selection",
    "Selector",
    "__version__",
    "get_selector",
    "load",
    "wrap",
]

_HOMES = {
    "DynamicPromptModel": "idp.dynamic.model",
    "IdpError": "idp.errors",
    "Prompt": "idp.bank.prompt",
    "PromptBank": "idp.bank.bank",
    "Selection": "idp.select.base",
    "Selector": "idp.select.base",
    "get_selector": "idp.select.registry",
    "load": "idp.model.load",
    "wrap": "idp.dynamic.wrap",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
