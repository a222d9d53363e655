"""All prompts of a bank compiled beforehand, so that no run has to begin with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from idp.run.prefix import compile_prefix
from idp.run.prefix_files import PrefixFiles

if TYPE_CHECKING:
    from idp.bank.prompt import Prompt
    from idp.model.loaded import LanguageModel

__all__ = ["save_prefixes"]


def save_prefixes(
    lm: LanguageModel,
    prompts: Iterable[Prompt],
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    done: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Compile prompts for a model and keep them as files, one for each.

    `wrap(..., keep_prefixes=folder)` reads them in place of a pass over the prompt. The folder may hold files of
    other models, dtypes and banks; they are left alone.

    Args:
        lm: the model, in the dtype it will run in.
        prompts: such as a bank.
        folder: where the files go; each is written whole or not at all, so that an interruption loses one at most.
        overwrite: compile a prompt again although its file is there and fits.
        done: called when a prompt is finished, to tell of progress.

    Returns:
        The file of each prompt.

    Raises:
        BankError: a prompt of another width than the model's, or a text without tokens.
        ModelError: prompts cannot be put in front of this model's inputs.
        OutputError: the folder cannot be written to.
        PromptTooLongError: a prompt fills the context of the model.

    Example:
        >>> save_prefixes(lm, PromptBank.load("my-bank"), "my-bank/prefixes")  # doctest: +SKIP
    """
    lm.require_prompts()
    files, paths = PrefixFiles(Path(folder), lm), []
    for prompt in prompts:
        if overwrite or files.load(prompt) is None:
            files.save(prompt, compile_prefix(lm, prompt))
        paths.append(files.path(prompt))
        done()
    return paths
