"""Soft prompts as adapters of PEFT: read without that package, written through its own configuration classes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from idp.bank.prompt import Prompt
from idp.bank.vectors import require_no_vectors
from idp.errors import BankError, OutputError, needing, suggest
from idp.files import atomic_folder, atomic_write_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from idp.bank.fingerprint import Fingerprint

__all__ = ["PEFT_TYPES", "adapter_folders", "load_peft", "require_peft", "save_peft", "save_peft_bank"]

PEFT_TYPES = {"PROMPT_TUNING": "PromptTuningConfig", "P_TUNING": "PromptEncoderConfig"}
"""Kinds of adapter that are a prompt in front of the input, and PEFT's configuration of each."""

_CONFIG, _WEIGHTS, _PICKLE, _CARD = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "README.md",
)
_TENSOR = "prompt_embeddings"
_NAME = "idp_prompt"
_PER_LAYER = ("PREFIX_TUNING", "CARTRIDGE")
_REMEMBERED = ("peft_type", "base_model_name_or_path", "num_virtual_tokens", "task_type", "peft_version")
_LONGEST_FOLDER = 60  # characters of up to four bytes; file systems take 255 bytes


def load_peft(
    folder: str | os.PathLike[str], *, name: str | None = None, fingerprint: Fingerprint | None = None
) -> Prompt:
    """Read a prompt that PEFT trained by prompt tuning or P-tuning.

    Of P-tuning PEFT keeps the vectors that its encoder made, so both are the same thing here: `n` vectors in front of
    the input. The package peft is not needed.

    Args:
        folder: what `PeftModel.save_pretrained` wrote: `adapter_config.json` and `adapter_model.safetensors`.
        name: what to call the prompt; else the name it was exported under, else the folder's.
        fingerprint: the model it is meant for, whose width it must have.

    Returns:
        The soft prompt, `(n, d)` in fp32; its provenance holds `source` (the folder's name) and what PEFT noted:
        `peft_type`, `base_model_name_or_path`, `num_virtual_tokens`, `task_type`, `peft_version`.

    Raises:
        BankError: no adapter there, a broken one, one that is not a prompt or more than one, weights that are a
            pickle, or a prompt of another width than the model's.

    Source: prompt tuning, arXiv 2104.08691; P-tuning, arXiv 2103.10385.

    Example:
        >>> load_peft("my-adapter", fingerprint=lm.fingerprint).kind  # doctest: +SKIP
        'soft'
    """
    folder = Path(folder)
    config = _read_config(folder)
    _require_prompt(folder, config)
    embedding, kept_name = _read_weights(folder)  # (n, d)
    called = folder.resolve().name
    provenance = {"source": called} | {key: config[key] for key in _REMEMBERED if config.get(key) is not None}
    try:
        prompt = Prompt(name or kept_name or called, embedding=embedding, provenance=provenance)
    except BankError as error:
        raise BankError(f"{folder}: {error}") from error
    _check_shape(folder, config, prompt, fingerprint)
    return prompt


def adapter_folders(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the folder itself where it is an adapter, else those of its sub-folders that are, in order of names."""
    folder = Path(folder)
    if (folder / _CONFIG).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{_CONFIG}"))


def save_peft(
    prompt: Prompt,
    folder: str | os.PathLike[str],
    *,
    peft_type: str = "PROMPT_TUNING",
    base_model: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a soft prompt as an adapter that `PeftModel.from_pretrained(model, folder)` loads.

    Args:
        prompt: a soft prompt.
        folder: where to; it is written whole or not at all.
        peft_type: `PROMPT_TUNING`, or `P_TUNING`, of which PEFT keeps and reads back the encoded prompt only.
        base_model: name of the model it fits, for PEFT's `AutoPeftModel`; else the one it was imported with.
        overwrite: replace an adapter that is there.

    Returns:
        The folder.

    Raises:
        BankError: a text prompt, or an unknown type.
        MissingExtraError: peft is not installed.
        OutputError: something is there already, or the folder cannot be written to.

    Example:
        >>> save_peft(bank["static"], "my-adapter", base_model="org/model")  # doctest: +SKIP
    """
    config = _config(prompt, peft_type, base_model)
    _require_adapters_only(Path(folder), overwrite)
    with atomic_folder(folder, overwrite=overwrite) as draft:
        _write(prompt, config, draft)
    return Path(folder)


def save_peft_bank(
    prompts: Sequence[Prompt],
    folder: str | os.PathLike[str],
    *,
    peft_type: str = "PROMPT_TUNING",
    base_model: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write soft prompts as adapters, each in a sub-folder called after it; all of them or none.

    Args:
        prompts: soft prompts.
        folder: where to.
        peft_type: as of `save_peft`.
        base_model: as of `save_peft`.
        overwrite: replace a folder of adapters that is there, with every adapter in it.

    Returns:
        The sub-folders, one for each prompt.

    Raises:
        BankError: no prompts, a text prompt among them, or an unknown type.
        MissingExtraError: peft is not installed.
        OutputError: something is there already, or the folder cannot be written to.

    Example:
        >>> save_peft_bank(PromptBank.load("my-bank").prompts, "my-adapters")  # doctest: +SKIP
    """
    if not prompts:
        raise BankError("there is no prompt to write.")
    configs = [_config(prompt, peft_type, base_model) for prompt in prompts]
    names = _folder_names([prompt.name for prompt in prompts])
    _require_adapters_only(Path(folder), overwrite)
    with atomic_folder(folder, overwrite=overwrite) as draft:
        for prompt, config, name in zip(prompts, configs, names, strict=True):
            _write(prompt, config, draft / name)
    return [Path(folder) / name for name in names]


def require_peft() -> Any:
    """Return the module `peft`.

    Raises:
        MissingExtraError: it is not installed.
    """
    with needing("PEFT adapters need peft", "peft"):
        import peft
    return peft


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / _CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BankError(f"no PEFT adapter at {folder}: {_CONFIG} is missing. Is the path right?") from error
    except (OSError, ValueError) as error:
        raise BankError(f"{file} cannot be read as JSON: {error}.") from error
    if not isinstance(config, dict):
        raise BankError(f"{file} is not the configuration of a PEFT adapter.")
    return config


def _require_prompt(folder: Path, config: dict[str, Any]) -> None:
    """Refuse an adapter that is not one prompt in front of the input of a decoder."""
    kind, wanted = config.get("peft_type"), " or ".join(PEFT_TYPES)
    if kind in _PER_LAYER:
        raise BankError(
            f"{folder} is a {kind} adapter: it holds keys and values for every layer, where a prompt is vectors in "
            f"front of the input, and the one cannot be turned into the other. Train one with {wanted}."
        )
    if kind not in tuple(PEFT_TYPES):  # of any type, in a file from elsewhere
        raise BankError(f"{folder} is an adapter of type {kind!r}, which is not a prompt; {wanted} is.")
    if config.get("task_type") == "SEQ_2_SEQ_LM" or (config.get("num_transformer_submodules") or 1) != 1:
        raise BankError(f"{folder} holds prompts of an encoder-decoder; a bank is for causal (decoder-only) models.")


def _read_weights(folder: Path) -> tuple[Tensor, str | None]:
    """Return the vectors `(n, d)`, and the name they were exported under."""
    file = folder / _WEIGHTS
    if not file.is_file():
        raise BankError(_why_no_weights(folder))
    try:
        with safe_open(file, framework="pt") as stored:
            keys = set(stored.keys())
            _require_tensor(file, keys)
            return stored.get_tensor(_TENSOR), (stored.metadata() or {}).get(_NAME)
    except (OSError, SafetensorError) as error:
        raise BankError(f"{file} is not a safetensors file: {error}.") from error


def _why_no_weights(folder: Path) -> str:
    if (folder / _PICKLE).exists():
        return (
            f"{folder / _PICKLE} is a pickle, which may run code when it is read, so it is not. Load the adapter where "
            "it comes from and save it again: save_pretrained(..., safe_serialization=True)."
        )
    return f"the adapter in {folder} is incomplete: {_WEIGHTS} is missing."


def _require_tensor(file: Path, keys: set[str]) -> None:
    if _TENSOR not in keys:
        raise BankError(f"{file} holds no {_TENSOR!r}, so it is not a prompt saved by PEFT.")
    if more := sorted(keys - {_TENSOR}):
        raise BankError(
            f"{file} holds more than a prompt ({', '.join(more[:3])}{' ...' if len(more) > 3 else ''}): weights that "
            "were trained with it and without which it is not what it was. Train a prompt alone."
        )


def _check_shape(folder: Path, config: dict[str, Any], prompt: Prompt, fingerprint: Fingerprint | None) -> None:
    found = tuple(prompt.embedding.shape) if prompt.embedding is not None else ()  # (n, d)
    stated = config.get("num_virtual_tokens"), config.get("token_dim")
    if any(said is not None and said != size for said, size in zip(stated, found, strict=True)):
        raise BankError(f"{folder} is broken: its prompt has the shape {found}, but {_CONFIG} says {stated}.")
    if fingerprint is not None and fingerprint.hidden_size != found[1]:
        trained_on = config.get("base_model_name_or_path") or "a model it does not name"
        raise BankError(
            f"{folder} holds a prompt {found[1]} wide, trained on {trained_on}; it does not fit "
            f"{fingerprint.describe()}. Import it for the model it was trained on."
        )


def _config(prompt: Prompt, peft_type: str, base_model: str | None) -> Any:
    """Return PEFT's configuration of a prompt."""
    if peft_type not in PEFT_TYPES:
        raise BankError(f"unknown type of adapter {peft_type!r}. {suggest(peft_type, PEFT_TYPES)}")
    if prompt.embedding is None:
        raise BankError(f"prompt {prompt.name!r} is text; an adapter holds vectors, which idp.model.soft makes of it.")
    require_no_vectors([prompt])
    length, width = prompt.embedding.shape
    return getattr(require_peft(), PEFT_TYPES[peft_type])(
        base_model_name_or_path=base_model or prompt.provenance.get("base_model_name_or_path"),
        task_type="CAUSAL_LM",
        inference_mode=True,  # without an encoder: the vectors are read as they are
        num_virtual_tokens=length,
        token_dim=width,
        num_transformer_submodules=1,
    )


def _write(prompt: Prompt, config: Any, folder: Path) -> None:
    config.save_pretrained(str(folder))
    metadata = {"format": "pt", _NAME: prompt.name}
    atomic_write_bytes(folder / _WEIGHTS, save({_TENSOR: prompt.embedding}, metadata))


def _folder_names(names: Sequence[str]) -> list[str]:
    """Return a folder's name for each prompt, none twice even where capital letters count for nothing.

    Example:
        >>> _folder_names(["part-1", "is it / is it not", "Part-1"])
        ['part-1', 'is-it-is-it-not', 'Part-1-2']
    """
    taken: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^\w.-]+", "-", name)[:_LONGEST_FOLDER].strip("-.") or "prompt"
        candidate, number = plain, 2
        while candidate.lower() in taken:
            candidate, number = f"{plain}-{number}", number + 1
        taken[candidate.lower()] = candidate
    return list(taken.values())


def _require_adapters_only(folder: Path, overwrite: bool) -> None:
    """Before a folder is replaced: whatever is in it besides adapters would be lost."""
    if not overwrite or not folder.is_dir():
        return
    ours = {_CONFIG, _WEIGHTS, _PICKLE, _CARD}
    for path in sorted(folder.iterdir()):
        if not ((path.name in ours and path.is_file()) or (path / _CONFIG).is_file()):
            raise OutputError(f"{folder} holds {path.name}, which is no adapter; choose another folder.")
