"""A view of a model that ends after its first layers, with the model's own weights and without touching the model."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

from torch import nn

from idp.errors import ModelError
from idp.model.loaded import LanguageModel

__all__ = ["decoder_layers", "num_layers", "shallow"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
_REPLACED_FORWARD = ("forward", "_old_forward", "_hf_hook")


def num_layers(lm: LanguageModel) -> int:
    """How many decoder layers a model has."""
    count: int = lm.model.get_decoder().config.num_hidden_layers
    return count


def decoder_layers(lm: LanguageModel) -> list[nn.Module]:
    """The decoder layers of a model, the first one first.

    Raises:
        ModelError: the architecture has no list of them.

    Example:
        >>> len(decoder_layers(lm)) == num_layers(lm)  # doctest: +SKIP
        True
    """
    found = _layer_list(lm.model.get_decoder(), num_layers(lm))
    if found is None:
        raise ModelError(f"{lm.name} has no list of decoder layers that could be looked at one by one.")
    parent, name = found
    return list(getattr(parent, name))


def shallow(lm: LanguageModel, layers: int, attention: str | None = None) -> nn.Module:
    """Build a decoder of a model's first layers.

    It is a second tree of modules with a config of its own and the model's own parameters, none of them copied. The
    model's modules, config and hooks stay as they are. What stands behind the layers, as a rule a norm, is there too.

    Args:
        lm: the model.
        layers: how many, 1 to `num_layers(lm)`.
        attention: an attention function known to `transformers` for the last of these layers; None keeps the model's.

    Returns:
        A module that is called like the model's decoder.

    Raises:
        ModelError: the architecture has no list of decoder layers, or not so many.

    Example:
        >>> shallow(lm, 2)(input_ids=ids, use_cache=False).last_hidden_state.shape  # doctest: +SKIP
        torch.Size([1, 7, 4096])
    """
    if not 1 <= layers <= num_layers(lm):
        raise ModelError(f"{lm.name} has {num_layers(lm)} layers, so there is no view of its first {layers}.")
    config = copy.deepcopy(lm.model.config)
    view = _clone(lm.model.get_decoder(), config, lm.model.config)
    found = _layer_list(view, num_layers(lm))
    if found is None:
        raise ModelError(f"{lm.name} has no list of decoder layers that could be cut off.")
    parent, name = found
    kept = list(getattr(parent, name))[:layers]
    if attention is not None:
        other = copy.deepcopy(config)
        other._attn_implementation = attention  # reaches its sub-configs too
        kept[-1] = _clone(kept[-1], other, config)
    parent._modules[name] = nn.ModuleList(kept)
    return view


def _clone(module: nn.Module, config: Any, original: Any) -> nn.Module:
    """Copy the modules that hold a config, and those above them; share all others, and every tensor."""
    children = {
        name: child if child is None else _clone(child, config, original) for name, child in module._modules.items()
    }
    own_config = getattr(module, "config", None)
    if own_config is None and all(children[name] is child for name, child in module._modules.items()):
        return module
    clone = module.__class__.__new__(module.__class__)
    clone.__dict__.update(module.__dict__)
    for replaced in _REPLACED_FORWARD:  # a bound method would lead back to the model itself
        clone.__dict__.pop(replaced, None)
    clone.__dict__.update({hooks: OrderedDict() for hooks in _HOOKS})
    clone.__dict__.update(_modules=children, _parameters=dict(module._parameters), _buffers=dict(module._buffers))
    if own_config is not None:
        clone.config = _matching(own_config, config, original)
    return clone


def _matching(own: Any, config: Any, original: Any) -> Any:
    """Return the copied config that stands for a module's own, which may be a sub-config of the model's."""
    if own is original:
        return config
    for key in getattr(original, "sub_configs", ()):
        if getattr(original, key, None) is own:
            return getattr(config, key)
    other = copy.deepcopy(own)
    other._attn_implementation = config._attn_implementation
    return other


def _layer_list(decoder: nn.Module, count: int) -> tuple[nn.Module, str] | None:
    """Find the list of all decoder layers: the module that holds it, and its name there."""
    for parent in decoder.modules():
        for name, child in parent._modules.items():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return parent, name
    return None
