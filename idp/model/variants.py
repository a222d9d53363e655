"""Compressed forms of a dense model that need no calibration text, so that they are the same bits on every machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from idp.errors import ModelError, SelectorError, suggest
from idp.files import atomic_folder, json_text, only_process, public_name
from idp.model.reading import read_lm
from idp.model.spec import ModelSpec
from idp.observer import Observer
from idp.specs import parse_spec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from idp.model.loaded import LanguageModel

__all__ = ["check_variant", "is_made", "largest", "made_variant", "save_variant"]

_LOG = logging.getLogger(__name__)
_MARK = "variant.json"
_VERSION = 1  # of what this module makes


def check_variant(variant: str) -> None:
    """Check how a variant is written.

    Args:
        variant: `rtn:bits=B,group=G` or `magnitude:sparsity=S`.

    Raises:
        ModelError: an unknown kind, or an option that is missing, unknown or out of range.

    Example:
        >>> check_variant("rtn:bits=4,group=64")
    """
    _parsed(variant)


def save_variant(lm: LanguageModel, variant: str, folder: Path) -> None:
    """Compress a dense model and write it to a folder that plain transformers loads.

    `rtn` rounds every matrix but the head to the nearest of `2^bits` values, with a scale and a zero point for each
    `group` of weights in a row: `scale = (max - min) / (2^bits - 1)`, the range holding 0. It is stored packed, in the
    format of compressed-tensors. `magnitude` sets the share `sparsity` of each matrix to zero, the smallest weights,
    and is stored plain. Each weight depends on its own group or matrix only, by operations that IEEE 754 rounds
    exactly.

    Args:
        lm: the dense model in float32; it is changed and of no other use afterwards.
        variant: `rtn:bits=B,group=G` or `magnitude:sparsity=S`.
        folder: an existing folder.

    Raises:
        ModelError: `variant` cannot be read, or its groups do not divide the model's widths.

    Example:
        >>> save_variant(load("smollm2-135m"), "rtn:bits=3,group=32", Path("made"))  # doctest: +SKIP
    """
    kind, options = _parsed(variant)
    with torch.no_grad():
        _KINDS[kind][0](lm.model, folder, **options)
    lm.tokenizer.save_pretrained(folder)


def made_variant(spec: ModelSpec, dense: Callable[[], ModelSpec], observer: Observer | None = None) -> ModelSpec:
    """Return a spec of the folder that a variant is in; it is made now where it was not yet, by one process at a time.

    Args:
        spec: the variant.
        dense: gives the dense model, its files here.
        observer: is told that it is made; without one it is logged.

    Raises:
        ModelError: the dense model cannot be read, or the variant makes no sense.
        OutputError: the cache cannot be written to, or the disk is full.
    """
    folder = Path(spec.source)
    if not is_made(spec):
        with only_process(folder):
            if not is_made(spec):  # another process may have been quicker
                _make(spec, dense(), folder, observer)
    return replace(spec, variant=None)


def is_made(spec: ModelSpec) -> bool:
    """Whether a variant lies in its folder as this version makes it."""
    try:
        return bool(json.loads((Path(spec.source) / _MARK).read_text(encoding="utf-8")) == _mark(spec))
    except (OSError, ValueError):
        return False


def largest(weight: Tensor, sparsity: float, structure: str = "0:0") -> Tensor:
    """Return the mask `(out, in)` of the weights that are kept; of equals those that come first go.

    Args:
        weight: matrix `(out, in)`.
        sparsity: share that goes, rounded down to whole weights.
        structure: `n:m` for `n` of every `m` in a row, instead of a share of all.

    Example:
        >>> largest(torch.tensor([[3.0, -1.0, 2.0, 0.5]]), 0.0, "2:4").tolist()
        [[True, False, True, False]]
    """
    zeros, of = map(int, structure.split(":"))
    if not of:
        return _largest_of_all(weight.abs().flatten(), int(sparsity * weight.numel())).reshape(weight.shape)
    parts = weight.abs().reshape(-1, of)  # (parts, of)
    mask = torch.ones_like(parts, dtype=torch.bool)
    return mask.scatter(1, parts.argsort(dim=1, stable=True)[:, :zeros], False).reshape(weight.shape)


def _largest_of_all(sizes: Tensor, gone: int) -> Tensor:
    """The mask of all but the `gone` smallest, `(n,)`; found by the size of the last one, as sorting takes seconds."""
    if not gone:
        return torch.ones_like(sizes, dtype=torch.bool)
    last = sizes.kthvalue(gone).values
    mask = sizes >= last
    equals = (sizes == last).nonzero()[:, 0]
    mask[equals[: gone - int((~mask).sum())]] = False
    return mask


def _mark(spec: ModelSpec) -> dict[str, Any]:
    """What a folder says of how it was made: another version's is made again."""
    return {"variant": spec.variant, "dense": spec.dense, "version": _VERSION}


def _make(spec: ModelSpec, dense: ModelSpec, folder: Path, observer: Observer | None) -> None:
    what = f"making {spec.name} from {public_name(dense.name)} ({spec.variant})"
    if observer is None:
        _LOG.warning(what)
    else:
        observer.stage(what, None)
    check_variant(str(spec.variant))
    lm = read_lm(dense, "cpu", "float32")
    with atomic_folder(folder, overwrite=True) as new:
        save_variant(lm, str(spec.variant), new)
        (new / _MARK).write_text(json_text(_mark(spec)), encoding="utf-8")


def _parsed(variant: str) -> tuple[str, dict[str, Any]]:
    try:
        kind, options = parse_spec(variant)
    except SelectorError as error:
        raise ModelError(f"cannot read the variant {variant!r}: write name:option=value,option=value.") from error
    if kind not in _KINDS:
        raise ModelError(f"unknown variant {kind!r}. {suggest(kind, _KINDS)}")
    known = _KINDS[kind][1]
    if options.keys() != known.keys() or not all(fits(options[name]) for name, fits in known.items()):
        raise ModelError(
            f"the variant {variant!r} is not possible: write rtn:bits=2 to 8,group=SIZE or magnitude:sparsity=a share "
            "between 0 and 1."
        )
    return kind, options


def _save_rounded(model: PreTrainedModel, folder: Path, *, bits: int, group: int) -> None:
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
    from compressed_tensors.quantization.utils import calculate_qparams

    linears = _linears(model)
    if odd := next((name for name, each in linears.items() if each.in_features % group), None):
        raise ModelError(f"groups of {group} do not divide the {linears[odd].in_features} inputs of {odd}.")
    weights = {"num_bits": bits, "type": "int", "symmetric": False, "strategy": "group", "group_size": group}
    scheme = {"config_groups": {"all": {"targets": list(linears), "weights": weights}}}
    apply_quantization_config(model, QuantizationConfig(**scheme, quantization_status="initialized"))
    for linear in linears.values():
        parts = linear.weight.unflatten(1, (-1, group))  # (out, in / group, group)
        scale, zero_point = calculate_qparams(parts.amin(-1), parts.amax(-1), linear.quantization_scheme.weights)
        linear.weight_scale.copy_(scale)
        linear.weight_zero_point.copy_(zero_point)
    compressor = ModelCompressor.from_pretrained_model(model, quantization_format="pack-quantized")
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))


def _save_pruned(model: PreTrainedModel, folder: Path, *, sparsity: float) -> None:
    for linear in _linears(model).values():
        linear.weight.mul_(largest(linear.weight, sparsity))
    model.save_pretrained(folder)


def _linears(model: PreTrainedModel) -> dict[str, Any]:
    """The matrices that are compressed, by name: those of all linear layers but the head."""
    head = model.get_output_embeddings()
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name: module for name, module in found.items() if module is not head}


_Fits = Callable[[Any], bool]
_KINDS: dict[str, tuple[Callable[..., None], dict[str, _Fits]]] = {
    "rtn": (
        _save_rounded,
        {
            "bits": lambda value: isinstance(value, int) and 2 <= value <= 8,
            "group": lambda value: isinstance(value, int) and value > 0,
        },
    ),
    "magnitude": (_save_pruned, {"sparsity": lambda value: isinstance(value, float) and 0 < value < 1}),
}
"""Kind of variant -> what makes it, and its options with what is right for each."""
