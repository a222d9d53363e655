"""Which matrices of a model are compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from idp.errors import RecipeError

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Layers", "linear_layers"]


class Layers(NamedTuple):
    """The linear layers of a model.

    Attributes:
        head: name of the output layer, which is left alone, as the embeddings are.
        names: of all others.
        widths: number of inputs of each.
        unpackable: a class among them that compressed-tensors does not pack, which takes `torch.nn.Linear` alone.
    """

    head: str
    names: tuple[str, ...]
    widths: tuple[int, ...]
    unpackable: str = ""


def linear_layers(lm: LanguageModel) -> Layers:
    """Find the linear layers of a model.

    Raises:
        RecipeError: it has none outside its head (GPT-2 keeps its matrices in another kind of layer), or it is a
            mixture of experts or a state-space model.

    Example:
        >>> linear_layers(lm).head  # doctest: +SKIP
        'lm_head'
    """
    if stack := next((name for name, weight in lm.model.named_parameters() if weight.ndim > 2), None):
        raise RecipeError(
            f"{lm.name} ({type(lm.model).__name__}) has weights that are no matrices ({stack}). Mixtures of experts "
            "and state-space models are not compressed here: use a ready-made checkpoint, or llm-compressor itself."
        )
    head = lm.model.get_output_embeddings()
    linears = {name: module for name, module in lm.model.named_modules() if isinstance(module, nn.Linear)}
    inner = {name: module for name, module in linears.items() if module is not head}
    if not inner:
        raise RecipeError(
            f"{lm.name} ({type(lm.model).__name__}) has no torch.nn.Linear layers, which are what can be compressed."
        )
    names = tuple(inner)
    own = next((name for name, module in linears.items() if module is head), "lm_head")
    widths = tuple(module.in_features for module in inner.values())
    other = next((type(module).__name__ for module in inner.values() if type(module) is not nn.Linear), "")
    return Layers(own, names, widths, other)
