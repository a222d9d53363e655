"""Having llm-compressor carry out a recipe."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import torch
from torch import nn

from idp.compress.layers import linear_layers
from idp.errors import IdpError, MissingExtraError, RecipeError, brief, needing
from idp.model.fingerprint import tensors_hash
from idp.model.view import decoder_layers
from idp.observer import Observer, Silent

if TYPE_CHECKING:
    from idp.compress.flexround.block import Errors
    from idp.model.loaded import LanguageModel

__all__ = ["Outcome", "carry_out", "require_compressor", "require_understood"]


class Outcome(NamedTuple):
    """What carrying out a recipe came to.

    Attributes:
        blocks: errors of each block's output, where they were measured (FlexRound).
        unquantised: linear layers that a quantisation left as they were; auto-round does so with widths that 32 does
            not divide.
        seconds: that it took.
    """

    blocks: tuple[Errors, ...]
    unquantised: tuple[str, ...]
    seconds: float


def require_compressor() -> None:
    """Check that llm-compressor is installed.

    Raises:
        MissingExtraError: it is not.
    """
    with needing("compressing needs llm-compressor", "compress"):
        import llmcompressor  # noqa: F401


def require_understood(recipe: Mapping[str, Any]) -> None:
    """Check that llm-compressor can read a recipe, before anything is computed.

    Raises:
        RecipeError: it cannot.
        MissingExtraError: the recipe needs a package that is not installed.
    """
    _read(recipe)


def carry_out(
    lm: LanguageModel,
    recipe: Mapping[str, Any],
    rows: Sequence[Sequence[int]],
    *,
    seed: int = 0,
    observer: Observer | None = None,
) -> Outcome:
    """Compress a model in place.

    The model is changed and what llm-compressor wraps around it stays: save it, and load what was saved.

    Args:
        lm: a dense model; it is of no other use afterwards.
        recipe: stages and modifiers (`Recipe.fill`).
        rows: calibration text, token ids of one length.
        seed: of what is random.
        observer: is told how far it is.

    Returns:
        What FlexRound achieved for each block, where the recipe has it, what a quantisation left out, and the time.

    Raises:
        MissingExtraError: llm-compressor is not installed.
        RecipeError: it cannot carry the recipe out.
    """
    require_compressor()
    from llmcompressor import oneshot

    steps, before = _read(recipe), tensors_hash(lm.model.state_dict())
    told, begun = observer or Silent(), time.perf_counter()
    with _watched(lm, steps, told), _pinned_where_possible(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # llm-compressor draws from the global generator
        try:
            oneshot(
                model=lm.model,
                processor=lm.tokenizer,
                dataset=_data_set(rows),
                recipe=steps,
                max_seq_length=max(map(len, rows)),
                num_calibration_samples=len(rows),
            )
        except (IdpError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a library's anything
            raise RecipeError(_refusal(lm, error)) from error
    seconds = time.perf_counter() - begun
    if tensors_hash(lm.model.state_dict()) == before:
        raise RecipeError(f"the recipe changed nothing in {lm.name}: do its targets name layers of this model?")
    errors = tuple(error for step in steps.modifiers for error in getattr(step, "errors", []))
    return Outcome(errors, _unquantised(lm), seconds)


def _unquantised(lm: LanguageModel) -> tuple[str, ...]:
    """Linear layers that a quantisation left out; none where nothing was quantised."""
    from compressed_tensors.quantization.utils import is_module_quantized

    linears = {name: lm.model.get_submodule(name) for name in linear_layers(lm).names}
    left = tuple(name for name, module in linears.items() if not is_module_quantized(module))
    return () if len(left) == len(linears) else left


@contextlib.contextmanager
def _pinned_where_possible() -> Iterator[None]:
    """Let AWQ run without an accelerator: llm-compressor 0.14 pins memory there too, which torch refuses."""
    from llmcompressor.pipelines.cache import IntermediatesCache

    if torch.accelerator.is_available():
        yield
        return
    with mock.patch.object(IntermediatesCache, "pin_memory", lambda *args: None):
        yield


def _refusal(lm: LanguageModel, error: Exception) -> str:
    if "incomplete set with matches" in str(error):
        return (
            f"llm-compressor does not know which layers of a {type(lm.model).__name__} AWQ scales together. Use "
            "another recipe, or a YAML file of llm-compressor that gives AWQModifier its `mappings`."
        )
    return f"llm-compressor cannot carry out the recipe on {lm.name}: {brief(error)}"


def _read(recipe: Mapping[str, Any]) -> Any:
    """Make llm-compressor's own recipe."""
    import yaml
    from llmcompressor.modifiers import ModifierFactory
    from llmcompressor.recipe import Recipe

    from idp.compress.flexround.modifier import FlexRoundModifier
    from idp.compress.magnitude import OneShotMagnitudeModifier

    for own in (FlexRoundModifier, OneShotMagnitudeModifier):
        ModifierFactory.register(own.__name__, own)
    try:
        steps = Recipe.create_instance(yaml.safe_dump(dict(recipe), sort_keys=False))
    except ImportError as error:
        raise MissingExtraError(f"the recipe needs a package that is missing: {error}") from error
    except (TypeError, ValueError) as error:  # pydantic's are ValueErrors
        raise RecipeError(f"llm-compressor does not understand the recipe: {brief(error)}") from error
    if not steps.modifiers:
        raise RecipeError("the recipe has no modifiers: put them under NAME_stage, NAME_modifiers.")
    return steps


def _data_set(rows: Sequence[Sequence[int]]) -> Any:
    from datasets import Dataset

    ids = [list(row) for row in rows]
    return Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]})


@contextlib.contextmanager
def _watched(lm: LanguageModel, steps: Any, observer: Observer) -> Iterator[None]:
    """Tell an observer whenever calibration text comes to another layer, and of each of FlexRound's iterations."""
    layers = decoder_layers(lm)
    learned = [step for step in steps.modifiers if hasattr(step, "tell")]
    passes = sum(step.requires_calibration_data for step in steps.modifiers)
    observer.stage("compressing", len(layers) * (passes + sum(step.iterations for step in learned)) or None)
    current: list[nn.Module] = []

    def entered(layer: nn.Module, args: Any) -> None:
        if current != [layer]:
            observer.advance(1)
            current[:] = [layer]

    handles = [layer.register_forward_pre_hook(entered) for layer in layers]
    for step in learned:
        step.tell(observer.advance)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
