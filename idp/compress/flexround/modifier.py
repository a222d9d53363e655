"""FlexRound as a modifier of llm-compressor, so that recipes can name it and pruning can go before it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

from compressed_tensors.offload import get_execution_device, offload_module
from compressed_tensors.offload.cache import OffloadCache
from compressed_tensors.offload.module import remove_module_offload
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.utils import is_module_quantized
from compressed_tensors.utils import update_offload_parameter
from llmcompressor.core import Event, State
from llmcompressor.modifiers import Modifier
from llmcompressor.modifiers.quantization import QuantizationMixin
from llmcompressor.modifiers.utils.hooks import HooksMixin
from llmcompressor.utils.pytorch.module import infer_sequential_targets
from pydantic import PrivateAttr
from torch import Tensor, nn

from idp.compress.flexround.block import BlockInput, Errors, Learning, block_output, learn_block
from idp.compress.flexround.rounding import Grid, round_to_nearest
from idp.compress.flexround.start import fitted
from idp.observer import Silent

__all__ = ["FlexRoundModifier"]

_RATES = {3: 2.5e-3, 4: 3e-3}
"""Published learning rates by bits (LLaMA-2-7B, weights only, min/max start)."""


class FlexRoundModifier(Modifier, QuantizationMixin):
    """Quantise weights by learned division rounding, block by block.

    Every linear layer of a decoder layer that the quantisation scheme targets is rounded; what is learned is folded
    into scales and integers, so the checkpoint is an ordinary one of compressed-tensors and costs nothing extra to run.
    Targets outside the decoder layers are rounded to nearest.

    Fields of a recipe, besides those of `QuantizationMixin`:
        iterations: steps of Adam for each block.
        learning_rate: at the first step; None for the published one: 3e-3 from 4 bits on, 2.5e-3 below.
        batch_size: rows of calibration text a step.
        mixed: share of input values from the uncompressed model.
        init: `min_max`, or `searched` for range and zero point with the smallest error.
        seed: of everything random.

    Source: arXiv 2306.00317 and its repository (`onliwad101/FlexRound_LRQ`).
    """

    requires_calibration_data: bool = True
    iterations: int = 5000
    learning_rate: float | None = None
    batch_size: int = 2
    mixed: float = 0.5
    init: Literal["min_max", "searched"] = "min_max"
    seed: int = 0

    _blocks: set[str] = PrivateAttr(default_factory=set)
    _inputs: dict[nn.Module, list[BlockInput]] = PrivateAttr(default_factory=dict)
    _dense: list[Tensor] = PrivateAttr(default_factory=list)
    _errors: list[Errors] = PrivateAttr(default_factory=list)
    _advance: Callable[[int], None] = PrivateAttr(default_factory=lambda: Silent().advance)

    @property
    def errors(self) -> list[Errors]:
        """Errors of the blocks done so far."""
        return self._errors

    def tell(self, advance: Callable[[int], None]) -> None:
        """Have a function called with the number of iterations just done."""
        self._advance = advance

    def on_initialize(self, state: State, **kwargs: Any) -> bool:
        """Attach quantisation schemes."""
        QuantizationMixin.initialize_quantization(self, state.model)
        self._blocks = set(infer_sequential_targets(state.model, kwargs.get("sequential_targets")))
        return True

    def on_calibration_start(self, state: State, event: Event, **kwargs: Any) -> None:
        """Watch what decoder layers are given."""
        QuantizationMixin.start_calibration(self, state.model)
        for module in state.model.modules():
            if self._is_block(module):
                self.register_hook(module, self._remember, "forward_pre", with_kwargs=True)

    def on_sequential_epoch_end(self, state: State, event: Event, modules: Iterable[nn.Module], **kwargs: Any) -> None:
        """Learn the layer that the calibration text has just come to."""
        modules = list(modules)
        done: set[nn.Module] = set()
        for block in filter(self._is_block, modules):
            self._learn(block)
            done |= set(block.modules())
        for module in modules:
            if module not in done and is_module_quantized(module):
                grid = self._grid(module)
                _settle(module, round_to_nearest(_weight(module), grid), grid)

    def on_calibration_end(self, state: State, event: Event, **kwargs: Any) -> None:
        """Take hooks off and forget the calibration text."""
        QuantizationMixin.end_calibration(self, state.model)
        self.remove_hooks()
        self._inputs, self._dense = {}, []

    def _is_block(self, module: nn.Module) -> bool:
        return type(module).__name__ in self._blocks

    def _remember(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._inputs.setdefault(module, []).append(_given(module, args, kwargs))

    def _learn(self, block: nn.Module) -> None:
        linears = {name: module for name, module in block.named_modules() if is_module_quantized(module)}
        inputs = self._inputs.pop(block)
        dense = self._dense or [each.hidden for each in inputs]
        if not linears:  # the recipe leaves this block out
            self._dense = [
                block_output(block, given._replace(hidden=x)) for given, x in zip(inputs, dense, strict=True)
            ]
            return
        how = self._learning(linears)
        with _onloaded(block), HooksMixin.disable_hooks():  # or every iteration's input would be remembered
            grids = {name: self._grid(linear) for name, linear in linears.items()}
            settled, self._dense, errors = learn_block(block, grids, inputs, dense, how, self._advance)
        for name, (weight, grid) in settled.items():
            _settle(linears[name], weight, grid)
        self._errors.append(errors)

    def _grid(self, module: nn.Module) -> Grid:
        return fitted(_weight(module), _scheme(module), self.init)

    def _learning(self, linears: dict[str, nn.Module]) -> Learning:
        bits = min(_scheme(linear).num_bits for linear in linears.values())
        rate = self.learning_rate or _RATES[4 if bits >= 4 else 3]
        return Learning(self.iterations, rate, self.batch_size, self.mixed, self.seed)


@contextmanager
def _onloaded(block: nn.Module) -> Iterator[None]:
    """Let a block's parameters be plain ones: those that llm-compressor offloads take no gradients."""
    offloaded = {
        module: (get_execution_device(module), module._parameters.offload_device)
        for module in block.modules()
        if isinstance(module._parameters, OffloadCache)
    }
    for module in offloaded:
        remove_module_offload(module, onload_tensors=True)
    try:
        yield
    finally:
        for module, devices in offloaded.items():
            offload_module(module, *devices)


def _weight(linear: nn.Module) -> Tensor:
    weight: Tensor = linear.get_parameter("weight")
    return weight


def _scheme(linear: nn.Module) -> QuantizationArgs:
    """How a layer's weights are quantised."""
    return cast("QuantizationArgs", cast("Any", linear).quantization_scheme.weights)


def _given(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BlockInput:
    """What a layer was called with, by the names of its parameters; the first of them is the hidden states."""
    signature = inspect.signature(type(module).forward)
    _, (_, hidden), *others = signature.bind(module, *args, **kwargs).arguments.items()
    named: dict[str, Any] = {}
    for name, value in others:
        anything = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        named |= value if anything else {name: value}
    return BlockInput(hidden.detach(), named)


def _settle(module: nn.Module, weight: Tensor, grid: Grid) -> None:
    """Give a layer its rounded weight, and the scales with which compressed-tensors finds the integers again."""
    update_offload_parameter(module, "weight", weight)
    update_offload_parameter(module, "weight_scale", grid.scale)
    if hasattr(module, "weight_zero_point"):
        update_offload_parameter(module, "weight_zero_point", grid.zero)
