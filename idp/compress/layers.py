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
    """

    head: str
    names: tuple[str, ...]
    widths: tuple[int, ...]


def linear_layers(lm: LanguageModel) -> Layers:
    """Find the linear layers of a model.

    Raises:
        RecipeError: it has none outside its head (GPT-2 keeps its matrices in another kind of layer), or it is a
            mixture of experts.

    Example:
        >>> linear_layers(lm).head  # doctest: +SKIP
        'lm_head'
    """
    if any(weight.ndim > 2 for weight in lm.model.parameters()):
        raise RecipeError(
            f"{lm.name} ({type(lm.model).__name__}) keeps its experts in stacks of matrices, which are not compressed "
            "here: use a ready-made checkpoint, or llm-compressor itself."
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
    return Layers(own, names, tuple(module.in_features for module in inner.values()))
