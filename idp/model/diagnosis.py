"""Why a model could not be read, found in its files after the fact: what loads well pays nothing for it."""

from __future__ import annotations

from pathlib import Path

from idp.errors import ModelError, brief
from idp.model.cached import cached_folder
from idp.model.spec import ModelSpec
from idp.model.weights import INDEX, StoredWeights

__all__ = ["diagnosis"]


def diagnosis(spec: ModelSpec, what: str, error: Exception) -> str | None:
    """Say in one line why reading a model failed and what to do, or return None where its files do not tell.

    Args:
        spec: the model.
        what: was read: `weights`, `tokenizer` ...
        error: what was raised.
    """
    if what not in ("configuration", "tokenizer", "weights"):  # of something else, which has no such switches
        return None
    if "trust_remote_code" in str(error):
        return _remote_code(spec, what)
    if (folder := cached_folder(spec)) is None:
        return None
    if spec.gguf is not None:
        return None if what == "tokenizer" else _broken_gguf(folder / spec.gguf, error)
    if what == "configuration":
        return None
    if what == "tokenizer":
        return _no_tokenizer(folder)
    return _pickled(spec, folder, error) or _damaged(folder) or _named_otherwise(folder)


def _broken_gguf(file: Path, error: Exception) -> str | None:
    if not file.exists():
        return None
    return f"cannot read {file}: it is no GGUF file of a known kind, or was cut off ({brief(error)})."


def _remote_code(spec: ModelSpec, what: str) -> str:
    return (
        f"the {what} of {spec.name} need code that comes with the model and that transformers does not have. It is not "
        "run unless you ask for it: --trust-remote-code (trust_remote_code=True)."
    )


def _no_tokenizer(folder: Path) -> str | None:
    if any(file for pattern in ("*token*", "vocab*", "merges.txt", "*.model") for file in folder.glob(pattern)):
        return None
    return f"{folder} has no tokenizer. Copy its files there, tokenizer.json above all, from the model this one is of."


def _named_otherwise(folder: Path) -> str | None:
    """Name weights that transformers does not look for, as AutoGPTQ's `gptq_model-4bit-128g.safetensors`."""
    names = [file.name for file in folder.glob("*.safetensors")]
    if len(names) != 1 or names[0].startswith("model"):
        return None
    return f"the weights in {folder} are called {names[0]}: call them model.safetensors."


def _pickled(spec: ModelSpec, folder: Path, error: Exception) -> str | None:
    pickles = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
    if not pickles or (folder / INDEX).exists() or any(folder.glob("*.safetensors")):
        return None
    if spec.allow_pickle:
        return f"{folder / pickles[0]} holds more than plain tensors, or was cut off, and is not read: {brief(error)}"
    return (
        f"{spec.name} keeps its weights as a pickle ({pickles[0]}), which can run code when it is read. To read plain "
        "tensors of it and nothing else: --allow-pickle (allow_pickle=True)."
    )


def _damaged(folder: Path) -> str | None:
    """Name a file that is missing, or cut off."""
    try:
        _ = StoredWeights(folder).tensors
    except ModelError as error:
        return str(error)
    return None
