"""What a model's name stands for: an alias, a folder, a file, or a hub id."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from idp.errors import ModelError, suggest
from idp.model.alias_files import own_aliases, read_aliases, user_aliases
from idp.model.places import is_path, place_of
from idp.model.spec import ModelSpec
from idp.resources import cache_dir

__all__ = ["ModelSpec", "aliases", "read_aliases", "resolve"]


def resolve(name: str | os.PathLike[str], *, allow_pickle: bool = False, trust_remote_code: bool = False) -> ModelSpec:
    """Find out what a name stands for, without loading or downloading anything.

    An alias comes first (the user's own before ours), then a folder or a `.gguf` file, then a hub id
    (`organisation/model`, for a GGUF model `organisation/model/file.gguf`).

    Args:
        name: what the user gave.
        allow_pickle: whether weights that are kept as a pickle may be read.
        trust_remote_code: whether code that comes with the model may be run.

    Returns:
        Where the model is. A hub id is not looked up, so it may turn out not to exist.

    Raises:
        ModelError: no such alias (the near misses are named), a folder that holds no model, or a broken file of
            aliases.

    Example:
        >>> resolve("llama-7b-4bit").source
        'TheBloke/LLaMa-7B-GPTQ'
    """
    try:
        text = os.fsdecode(name)
    except TypeError as error:
        raise ModelError(f"a model is named by an alias, a folder or a hub id, not by {name!r}.") from error
    # No alias looks like a path or a hub id, so these are found even where the user's file of aliases is broken. Any
    # other name may be one of that file, which wins over ours: without reading it nobody knows what was meant.
    known = {} if "/" in text or is_path(text) else aliases()
    if text in known:
        return replace(known[text], allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    if (place := place_of(text)) is not None:
        return ModelSpec(
            text, place.source, gguf=place.gguf, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code
        )
    raise ModelError(
        f"unknown model {text!r}. {suggest(text, known)} A folder or a hub id (organisation/model) works as well."
    )


def aliases() -> Mapping[str, ModelSpec]:
    """Return every alias: ours in the order of their file, then the user's own, which win over ours.

    Raises:
        ModelError: the user's file is broken.
    """
    return {**_ours(cache_dir()), **user_aliases()}


@cache
def _ours(folder: Path) -> Mapping[str, ModelSpec]:
    """Read our aliases, once for each folder that models are made or fetched into."""
    return own_aliases()
