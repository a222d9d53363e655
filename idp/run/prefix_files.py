"""Compiled prefixes on disk: a safetensors file for each prompt, in a folder for each model."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from idp.files import atomic_write_bytes
from idp.run.prefix import Prefix, prefill

if TYPE_CHECKING:
    from idp.bank.prompt import Prompt
    from idp.model.loaded import LanguageModel

__all__ = ["PrefixFiles"]

log = logging.getLogger(__name__)

_PROBED = 4
_TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-6}


class PrefixFiles:
    """Keys and values of prompts, kept between runs.

    A file is found by what the prompt is (its digest) and by the model's fingerprint and dtype. A fingerprint does not
    see every change of the weights, so what is read is compared with a prefill of the prompt's first four tokens; if
    they differ, the file counts for nothing.

    Args:
        folder: where the files are; it is made when first written to.
        lm: the model.

    Example:
        >>> files = PrefixFiles(Path("my-bank/prefixes"), lm)  # doctest: +SKIP
        >>> files.save(prompt, compile_prefix(lm, prompt))  # doctest: +SKIP
        >>> files.load(prompt).length  # doctest: +SKIP
        16
    """

    def __init__(self, folder: Path, lm: LanguageModel) -> None:
        """Read nothing yet."""
        scope = repr((sorted(lm.fingerprint.to_dict().items()), str(lm.dtype)))
        self._folder = folder / hashlib.sha256(scope.encode()).hexdigest()[:16]
        self._lm = lm

    def path(self, prompt: Prompt) -> Path:
        """Return where a prompt's file is, or would be."""
        return self._folder / f"{prompt.digest}.safetensors"

    def save(self, prompt: Prompt, prefix: Prefix) -> None:
        """Write a prefix, whole or not at all.

        Raises:
            OutputError: the folder cannot be written to.
        """
        tensors = {
            f"{number}.{part}": tensor.cpu().contiguous()
            for number, layer in enumerate(prefix.layers)
            for part, tensor in zip(("keys", "values"), layer, strict=True)
        }
        metadata = {"format": "idp-prefix", "prompt": prompt.name, "model": self._lm.fingerprint.describe()}
        atomic_write_bytes(self.path(prompt), save(tensors, metadata))

    def load(self, prompt: Prompt) -> Prefix | None:
        """Read a prefix onto the model's device; None where there is none that fits."""
        try:
            prefix = _prefix(load(self.path(prompt).read_bytes()), self._lm.device)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError) as error:
            log.warning("%s cannot be read (%s) and is written anew", self.path(prompt), error)
            return None
        if self._is_of_this_model(prompt, prefix):
            return prefix
        log.warning("%s is of other weights and is written anew", self.path(prompt))
        return None

    def _is_of_this_model(self, prompt: Prompt, prefix: Prefix) -> bool:
        embeds = self._lm.embed_prompt(prompt)
        probe = prefill(self._lm, embeds[:_PROBED], prompt.name)
        tolerance = _TOLERANCES.get(self._lm.dtype, 0.05)
        if len(prefix.layers) != len(probe.layers) or prefix.length != len(embeds):
            return False
        pairs = zip(prefix.layers, probe.layers, strict=True)
        return all(
            _is_close(kept[..., :_PROBED, :], made, tolerance)
            for layer, fresh in pairs
            for kept, made in zip(layer, fresh, strict=True)
        )


def _prefix(tensors: dict[str, Tensor], device: torch.device) -> Prefix:
    placed = {name: tensor.to(device) for name, tensor in tensors.items()}
    return Prefix(tuple((placed[f"{number}.keys"], placed[f"{number}.values"]) for number in range(len(placed) // 2)))


def _is_close(kept: Tensor, made: Tensor, tolerance: float) -> bool:
    """Whether two tensors are equal, measured at the size of the larger numbers in them."""
    if kept.shape != made.shape:
        return False
    return bool((kept.float() - made.float()).abs().max() <= tolerance * (1e-6 + made.float().abs().max()))
