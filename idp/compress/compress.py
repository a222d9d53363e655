"""Compressing a model: from a dense one and a recipe to a folder that plain transformers loads."""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import yaml
from rich.filesize import decimal

import idp
from idp.compress.calibration import Calibration, CalibrationText, calibration_text
from idp.compress.card import model_card
from idp.compress.gptq_checkpoint import gptqmodel_settings, require_gptqmodel, write_gptq_checkpoint
from idp.compress.layers import linear_layers
from idp.compress.oneshot import Outcome, carry_out, require_compressor, require_understood
from idp.compress.recipe import Recipe, find_recipe
from idp.compress.report import Compressed
from idp.errors import ModelError, OutputError, RecipeError
from idp.files import atomic_folder, json_text, public_name, require_free
from idp.model.aliases import ModelSpec, resolve
from idp.model.attempt import attempt
from idp.model.device import resolve_device
from idp.model.info import folder_info
from idp.model.load import load
from idp.model.needs import quantization_method
from idp.model.reading import read_config
from idp.observer import Observer, Silent
from idp.run.perplexity import perplexity

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["compress", "save"]

_MARGIN = 1.05
_LIBRARIES = ("llmcompressor", "compressed-tensors", "transformers", "torch")


def compress(
    model: str | os.PathLike[str] | ModelSpec,
    recipe: str,
    output: str | os.PathLike[str],
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> Compressed:
    """Compress a dense model and write it, its recipe and its card to a folder.

    The folder appears when all is done; until then nothing is there, and an interruption leaves nothing behind. It is
    loaded before it appears, so what is there can be loaded.

    Args:
        model: alias, folder or hub id of a dense model.
        recipe: name with options, or a YAML file (`find_recipe`).
        output: the folder to make.
        calibration: the text; None for 128 rows of the one that comes along.
        seed: of what is random.
        overwrite: replace what is in the folder.
        observer: is told how far it is.

    Raises:
        RecipeError: recipe, text and model do not fit together, or the model is compressed already.
        OutputError: something is in the folder, or there is not enough space.
        ModelError: the model cannot be loaded.
        MissingExtraError: llm-compressor is not installed.

    Example:
        >>> compress("org/model", "gptq:bits=3", "model-gptq-3")  # doctest: +SKIP
    """
    told, plan = observer or Silent(), find_recipe(recipe)
    require_free(output, overwrite=overwrite)
    (require_compressor if plan.by_compressor else require_gptqmodel)()
    spec = model if isinstance(model, ModelSpec) else resolve(model)
    told.stage("loading the dense model", None)
    stored = _stored_dtype(spec)
    dtype = torch.float32 if resolve_device().type == "cpu" else stored  # which every CPU computes well in
    lm = load(spec, dtype=dtype, observer=told)
    size = sum(weight.numel() for weight in lm.model.parameters())
    _require_space(Path(output), size * stored.itemsize)
    text = calibration_text(lm, calibration or Calibration())
    steps = plan.fill(linear_layers(lm), seed)
    if plan.by_compressor:
        require_understood(steps)
    before = _Before(
        spec, plan, text, size, size * stored.itemsize, _perplexity(lm, text, "the dense model", told), seed
    )
    lm.model.to("cpu")  # from where llm-compressor takes it to an accelerator block by block
    with atomic_folder(output, overwrite=overwrite) as folder:
        outcome = _write(lm, steps, text, folder, stored, seed, told)
        del lm  # two do not have to fit into memory
        made = _made(before, outcome, folder, _loaded_again(folder, spec, dtype), told)
        (folder / "compression.json").write_text(json_text(made.to_dict()), encoding="utf-8")
        (folder / "README.md").write_text(model_card(made), encoding="utf-8")
    return made


def _write(
    lm: LanguageModel,
    steps: Mapping[str, Any],
    text: CalibrationText,
    folder: Path,
    stored: torch.dtype,
    seed: int,
    observer: Observer,
) -> Outcome:
    """Carry a recipe out and write what it makes."""
    if (settings := gptqmodel_settings(steps)) is not None:
        seconds = write_gptq_checkpoint(lm, settings, text.rows, folder, seed=seed, observer=observer)
        _save_beside(lm, folder, steps)
        return Outcome((), (), seconds)
    outcome = carry_out(lm, steps, text.rows, seed=seed, observer=observer)
    if left := outcome.unquantised:
        observer.note(f"{len(left)} linear layers were left as they are, {left[0]} among them")
    observer.stage("saving", None)
    save(lm, folder, steps, stored)
    return outcome


class _Before(NamedTuple):
    """What is known before anything is compressed."""

    spec: ModelSpec
    recipe: Recipe
    text: CalibrationText
    parameters: int
    bytes: int
    perplexity: float
    seed: int


def _made(before: _Before, outcome: Outcome, folder: Path, lm: LanguageModel, observer: Observer) -> Compressed:
    """Measure the model that was made, and put all that is known together."""
    info = folder_info(folder)
    return Compressed(
        dense=public_name(before.spec.name),
        recipe=before.recipe.name,
        about=before.recipe.about,
        options=before.recipe.options,
        calibration=before.text.describe(),
        perplexity_before=before.perplexity,
        perplexity_after=_perplexity(lm, before.text, "the compressed model", observer),
        bytes_before=before.bytes,
        bytes_after=info.disk_bytes,
        kind=info.describe(),
        zeros=_zeros(lm) if before.recipe.by_compressor else 0.0,  # the weights of other checkpoints stay packed
        parameters=before.parameters,
        seconds=outcome.seconds,
        blocks=outcome.blocks,
        unquantised=outcome.unquantised,
        seed=before.seed,
        versions=_versions(),
    )


def save(lm: LanguageModel, folder: Path, steps: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Write a compressed model, its tokenizer and its recipe as transformers and llm-compressor read them."""
    with warnings.catch_warnings():
        # llm-compressor keeps weights where it can offload them, and transformers worries about the memory.
        warnings.filterwarnings("ignore", "Attempting to save a model with offloaded modules", UserWarning)
        lm.model.to(dtype).save_pretrained(folder, save_compressed=True)
    _save_beside(lm, folder, steps)


def _save_beside(lm: LanguageModel, folder: Path, steps: Mapping[str, Any]) -> None:
    lm.tokenizer.save_pretrained(folder)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(dict(steps), sort_keys=False), encoding="utf-8")


def _zeros(lm: LanguageModel) -> float:
    """The share of zeros among the weights of all linear layers but the head, as they are once loaded."""
    weights = [lm.model.get_submodule(name).get_parameter("weight") for name in linear_layers(lm).names]
    return float(sum((weight == 0).sum() for weight in weights) / sum(weight.numel() for weight in weights))


def _loaded_again(folder: Path, spec: ModelSpec, dtype: torch.dtype) -> LanguageModel:
    """Load what was saved.

    Raises:
        RecipeError: it cannot be loaded.
    """
    try:
        return load(folder, dtype=dtype)
    except ModelError as error:
        reason = str(error).replace(str(folder), "the result")
        raise RecipeError(
            f"what the recipe makes of {spec.name} cannot be loaded, so it is not kept: {reason}"
        ) from error


def _versions() -> dict[str, str]:
    own = {"idp": idp.__version__, "python": platform.python_version()}
    return own | {name: version(name) for name in _LIBRARIES}


def _stored_dtype(spec: ModelSpec) -> torch.dtype:
    """The type the dense checkpoint is stored in, which the compressed one is stored in too.

    Raises:
        RecipeError: the model is compressed already.
    """
    if spec.gguf is not None:
        if spec.dense == spec.name:  # an alias says that, unpacked, it stands in as the dense model
            return torch.float32
        raise RecipeError(f"{spec.name} is a GGUF file, quantised already: compress the dense model it was made from.")
    config = attempt(spec, "configuration", lambda: read_config(spec))
    if method := quantization_method(config):
        raise RecipeError(f"{spec.name} is quantised already ({method}): compress the dense model it was made from.")
    return config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32


def _require_space(output: Path, needed: int) -> None:
    """Check, before anything is computed, that the dense model would fit where the compressed one goes.

    Raises:
        OutputError: it would not.
    """
    there = next(parent for parent in [output, *output.resolve().parents] if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed * _MARGIN:
        raise OutputError(
            f"not enough space for {output}: up to {decimal(int(needed * _MARGIN))} are needed, {decimal(free)} are "
            "free. Choose another folder (--output), or make room."
        )


def _perplexity(lm: LanguageModel, text: CalibrationText, whose: str, observer: Observer) -> float:
    observer.stage(f"perplexity of {whose}", len(text.judged))
    return perplexity(lm, text.judged, advance=observer.advance)
