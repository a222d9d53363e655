"""What prompts are tuned on: the objective that a config asks for, its teacher run where it distils."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from idp.files import public_name
from idp.observer import Observer
from idp.tune.config import BuildConfig
from idp.tune.examples import Example
from idp.tune.features import OF_WHAT_BROKE
from idp.tune.objective import Objective
from idp.tune.teacher import Teacher, teach
from idp.tune.terms import TAUGHT, parse_terms

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["asks_a_teacher", "make_objective", "objective_of"]


def asks_a_teacher(config: BuildConfig) -> bool:
    """Whether a build needs the dense model, if there is one."""
    if config.method == "texts":
        return False
    distils = config.objective == "auto" or bool(parse_terms(config.objective).keys() & TAUGHT)
    return distils or (config.method == "parts" and bool(set(config.features) & OF_WHAT_BROKE))


def objective_of(config: BuildConfig, has_teacher: bool) -> str:
    """The terms that prompts are tuned on: those asked for, or distillation where there is a teacher.

    Raises:
        TaskError: unknown terms.
    """
    chosen = config.objective
    if chosen == "auto":
        chosen = "distill+distill-choice" if has_teacher else "answer+choice"
    parse_terms(chosen)
    return chosen


def make_objective(
    lm: LanguageModel,
    config: BuildConfig,
    examples: Sequence[Example],
    folder: Path,
    observer: Observer,
    teacher: LanguageModel | None = None,
) -> Objective:
    """Make the objective that a config asks for.

    Args:
        lm: the compressed model.
        config: of the build.
        examples: all that the objective will be asked about; where it distils, the teacher answers them now.
        folder: where these answers are kept; a later call reads them.
        observer: is told of progress.
        teacher: the dense model.

    Raises:
        TaskError: unknown terms, or some that need a teacher where there is none.
        ModelError: the teacher has another tokenizer, or activations cannot be recomputed.
        OutputError: the folder cannot be written to.

    Example:
        >>> make_objective(lm, BuildConfig(), examples, Path("teacher"), Silent(), dense).name  # doctest: +SKIP
        'distill+distill-choice'
    """
    terms = objective_of(config, teacher is not None)
    taught = None
    if teacher is not None and parse_terms(terms).keys() & TAUGHT:
        taught = _taught(lm, teacher, terms, config, examples, folder, observer)
    return Objective(lm, terms, teacher=taught, text_tokens=config.row_tokens, recompute=config.checkpointing)


def _taught(
    lm: LanguageModel,
    teacher: LanguageModel,
    terms: str,
    config: BuildConfig,
    examples: Sequence[Example],
    folder: Path,
    observer: Observer,
) -> Teacher:
    # What is asked of a teacher does not depend on its answers, so any objective of the kind can put it.
    asking = Objective(lm, "next-token" if "next-token" in terms else "choice", text_tokens=config.row_tokens)
    requests = [asking.request(view) for view in asking.views(examples)]
    observer.stage(f"asking the teacher {public_name(teacher.name)}", len(set(requests)))
    return teach(
        teacher,
        lm,
        requests,
        top_k=config.top_k,
        temperature=config.temperature,
        folder=folder,
        advance=observer.advance,
    )
