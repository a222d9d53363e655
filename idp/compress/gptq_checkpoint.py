"""GPTQ checkpoints in AutoGPTQ's format, which most published GPTQ models have, made by gptqmodel."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from idp.errors import IdpError, RecipeError, brief, needing
from idp.observer import Observer, Silent

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["gptqmodel_settings", "require_gptqmodel", "write_gptq_checkpoint"]

_WHOLE_ROW = -1  # gptqmodel's word for one scale a row
_ROWS_AT_ONCE = 4


def gptqmodel_settings(recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what gptqmodel is told by a filled-in recipe; None for a recipe of llm-compressor.

    Example:
        >>> gptqmodel_settings({"gptqmodel_stage": {"gptqmodel": {"bits": 3, "group_size": None, "sym": True}}})
        {'bits': 3, 'group_size': -1, 'sym': True}
    """
    stage = recipe.get("gptqmodel_stage")
    if stage is None:
        return None
    settings = dict(stage["gptqmodel"])
    return {**settings, "group_size": settings["group_size"] or _WHOLE_ROW}


def require_gptqmodel() -> None:
    """Check that gptqmodel is installed.

    Raises:
        MissingExtraError: it is not.
    """
    with needing("GPTQ checkpoints are made by gptqmodel", "gptq"):
        import gptqmodel  # noqa: F401


def write_gptq_checkpoint(
    lm: LanguageModel,
    settings: Mapping[str, Any],
    rows: Sequence[Sequence[int]],
    folder: Path,
    *,
    seed: int = 0,
    observer: Observer | None = None,
) -> float:
    """Quantise a model and write it to a folder; the model itself stays as it is.

    Args:
        lm: a dense model.
        settings: bits, group size (-1 for a whole row) and whether values are symmetric.
        rows: calibration text, token ids.
        folder: an existing folder.
        seed: of what is random.
        observer: is told that it is at work.

    Returns:
        The seconds that it took.

    Raises:
        MissingExtraError: gptqmodel is not installed.
        RecipeError: it cannot quantise the model.
    """
    require_gptqmodel()
    (observer or Silent()).stage("compressing", None)
    asked = [{"input_ids": torch.tensor([list(row)]), "attention_mask": torch.ones(1, len(row))} for row in rows]
    with tempfile.TemporaryDirectory(dir=folder.parent) as dense, _at_home(folder.parent):
        lm.model.save_pretrained(dense)
        lm.tokenizer.save_pretrained(dense)
        begun = time.perf_counter()
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                _quantise(Path(dense), settings, asked, folder)
        except (IdpError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a library's anything
            raise RecipeError(f"gptqmodel cannot quantise {lm.name}: {brief(error)}") from error
    return time.perf_counter() - begun


def _quantise(dense: Path, settings: Mapping[str, Any], asked: list[dict[str, Any]], folder: Path) -> None:
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    # Packing in Python: the default compiles C++ for half a minute.
    usual = {"device": "cpu", "pack_impl": "original", "offload_to_disk": False, "format": "gptq", "desc_act": False}
    model = GPTQModel.load(str(dense), QuantizeConfig(**usual, **settings))
    model.quantize(asked, batch_size=_ROWS_AT_ONCE, backend=BACKEND.AUTO)
    model.save(str(folder))


@contextlib.contextmanager
def _at_home(folder: Path) -> Iterator[None]:
    """Let gptqmodel write its log elsewhere than into the folder of whoever calls, and start on two cores."""
    here, workers = Path.cwd(), {"GPTQMODEL_CPU_WORKERS": str(max(2, os.cpu_count() or 1))}
    with mock.patch.dict(os.environ, workers), tempfile.TemporaryDirectory(dir=folder) as log:
        os.chdir(log)
        try:
            yield
        finally:
            os.chdir(here)
