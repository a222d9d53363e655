"""Which models can be given prompts, told by what they are made of and not by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from idp.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["base_model", "require_decoder", "why_no_prompts"]

_ADVICE = "Run it without a bank (selector 'none'), or use a model with attention in all layers."


def base_model(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """Return the model of transformers inside a PEFT or compiled model, adapters included; any other model as it is.

    The wrapper's `forward` takes anything and names nothing, so it cannot be asked which arguments it understands.

    Raises:
        ModelError: PEFT puts a prompt of its own in front of every input.
    """
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper, which names no arguments either
    settings = getattr(model, "peft_config", None)
    if settings is None or not hasattr(model, "get_base_model"):
        return model
    if any(adapter.is_prompt_learning for adapter in settings.values()):
        raise ModelError(
            f"{name} has a prompt of PEFT's own, which would stand in front of every input besides ours: pass its "
            "base model, and Prompt(name, embedding=peft_model.get_prompt_embedding_to_save('default'))."
        )
    inner: PreTrainedModel = model.get_base_model()
    return inner


def require_decoder(model: PreTrainedModel, name: str) -> None:
    """Refuse a model that reads and writes in two halves.

    Raises:
        ModelError: it is an encoder-decoder.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise ModelError(
            f"{name} ({type(model).__name__}) is an encoder-decoder: a prompt in front of its input is not in front "
            "of what it generates. Use a causal (decoder-only) language model."
        )


def why_no_prompts(model: PreTrainedModel, name: str) -> str | None:
    """Say why no prompt can be put in front of this model's inputs, or return None where one can.

    Without prompts such a model runs as well as any other, so it is refused only when one is wanted.
    """
    who = f"{name} ({type(model).__name__})"
    config = model.config.get_text_config()
    if getattr(config, "hidden_size_per_layer_input", 0):
        return (
            f"{who} looks every token up again for each of its layers (hidden_size_per_layer_input="
            f"{config.hidden_size_per_layer_input}), and a prompt of embeddings has no tokens. Run it without a bank "
            "(selector 'none'), or use a model without per-layer embeddings."
        )
    if getattr(model, "_is_stateful", False):  # what transformers asks before it would roll a cache back
        return f"{who} keeps a recurrent state, and no part of that is a prompt's alone, as keys are. {_ADVICE}"
    if odd := _odd_caches(model.config):
        return f"{who} caches more than the keys and values of attention ({', '.join(odd)}). {_ADVICE}"
    return None


def _odd_caches(config: Any) -> list[str]:
    """Name the kinds of layers of this model's own cache that hold something other than keys and values."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    plain = {DynamicLayer, DynamicSlidingWindowLayer}
    try:
        kinds = {type(layer) for layer in DynamicCache(config=config).layers}
    except (AttributeError, KeyError, TypeError):  # an unusual config: the cache itself is looked at on compiling
        return []
    return sorted(kind.__name__ for kind in kinds - plain)
