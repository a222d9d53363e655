"""What commands about banks share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel
    from idp.observer import Observer


def open_model(observer: Observer, name: str, device: str, dtype: str) -> LanguageModel:
    """Load the model that a bank is for.

    Raises:
        ModelError: there is no such model, or prompts cannot be put in front of its inputs.
    """
    from idp.model.aliases import resolve

    spec = resolve(name)  # quick, where importing torch is not
    observer.stage(f"loading {spec.name}", None)
    from idp.model.load import load

    lm = load(spec, device=device, dtype=dtype, observer=observer)
    lm.require_prompts()
    return lm
