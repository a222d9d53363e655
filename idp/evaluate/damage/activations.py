"""What compression did to the activations: how far each block's output is from the dense model's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from idp.evaluate.damage.pair import layer_pairs

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Blocks"]

Hook = Callable[[int, tuple[Any, ...], dict[str, Any], Tensor], None]


class Blocks:
    """The blocks of two models, watched while both read the same batch, the dense one first.

    Of a token `t` behind block `l` the relative error is `‖h_lt − ĥ_lt‖₂ / ‖h_lt‖₂`; here are its sums over tokens.
    (One norm over all tokens would be that of the first one: many models give it states a hundred times as long.)

    Args:
        dense: the model before compression.
        compressed: an alike model (`require_alike`).
        own: also run each compressed block on the dense model's input.

    Attributes:
        path: sums of the error that has come together up to and with each block, `(L,)`.
        own: sums of the error of each compressed block on the dense model's input, `(L,)`; None where not asked for.

    Raises:
        ModelError: the architecture has no list of decoder layers.

    Example:
        >>> blocks = Blocks(dense, compressed)  # doctest: +SKIP
        >>> with blocks.dense():  # doctest: +SKIP
        ...     dense.model(input_ids=ids, use_cache=False)
        >>> with blocks.compressed():  # doctest: +SKIP
        ...     compressed.model(input_ids=ids, use_cache=False)
    """

    def __init__(self, dense: LanguageModel, compressed: LanguageModel, *, own: bool = True) -> None:
        self._pairs = layer_pairs(dense, compressed)
        self._from, self._to = dense, compressed
        self.path = torch.zeros(len(self._pairs), dtype=torch.float64)  # (L,)
        self.own = torch.zeros(len(self._pairs), dtype=torch.float64) if own else None  # (L,)
        self._states: dict[int, Tensor] = {}
        self._alone = False

    @contextmanager
    def dense(self) -> Iterator[None]:
        """Keep what the dense model's blocks give, while it reads a batch."""
        with _hooked([ours for ours, _ in self._pairs], self._keep):
            yield

    @contextmanager
    def compressed(self) -> Iterator[None]:
        """Compare what the compressed model's blocks give with what was kept, which is then let go."""
        with _hooked([theirs for _, theirs in self._pairs], self._compare):
            yield

    def _keep(self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any], states: Tensor) -> None:
        if self._alone:  # where both are one model, its block told us of the call below
            return
        self._states[layer] = states  # (B, T, d)
        if self.own is not None:
            self._alone = True
            alone = _first(self._pairs[layer][1](*self._moved(args), **self._moved(kwargs)))  # (B, T, d)
            self._alone = False
            self.own[layer] += _summed(states, alone)

    def _compare(self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any], states: Tensor) -> None:
        self.path[layer] += _summed(self._states.pop(layer), states)

    def _moved(self, value: Any) -> Any:
        """Arguments of a dense block as a compressed one takes them: on its device, activations in its type."""
        if isinstance(value, Tensor):
            return value.to(self._to.device, self._to.dtype if value.dtype == self._from.dtype else value.dtype)
        if isinstance(value, tuple):
            return tuple(map(self._moved, value))
        return {name: self._moved(each) for name, each in value.items()} if isinstance(value, dict) else value


@contextmanager
def _hooked(layers: Sequence[nn.Module], hook: Hook) -> Iterator[None]:
    """Call `hook` with the number, the arguments and the output of every layer that is run meanwhile."""
    with ExitStack() as stack:
        for number, layer in enumerate(layers):

            def told(module: nn.Module, args: Any, kwargs: Any, output: Any, number: int = number) -> None:
                hook(number, args, kwargs, _first(output))

            stack.callback(layer.register_forward_hook(told, with_kwargs=True).remove)
        yield


def _first(output: Any) -> Tensor:
    """The states `(B, T, d)` that a block gives, alone or before other things."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


def _summed(states: Tensor, others: Tensor) -> float:
    """The sum over tokens of the relative distance of two times `(B, T, d)`; tokens of length 0 do not count."""
    states = states.float()
    norms = states.norm(dim=-1)  # (B, T)
    distances = (states - others.to(states.device).float()).norm(dim=-1)  # (B, T)
    return float((distances / norms).masked_fill(norms == 0, 0).double().sum())
