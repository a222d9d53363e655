"""What two models are given to read, and what they are asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from idp.errors import TaskError
from idp.evaluate.damage.probes import Probe, file_probes
from idp.evaluate.damage.world import EPOCH, FACTS, knows_world, world_documents, world_probes
from idp.text.documents import read_documents
from idp.tune.questions import Question, read_questions

if TYPE_CHECKING:
    import os

    from transformers import PreTrainedTokenizerBase

    from idp.model.loaded import LanguageModel

__all__ = ["Material", "material"]


@dataclass(frozen=True)
class Material:
    """A text and questions.

    Attributes:
        text: what the text is.
        documents: the text.
        asked: what the questions are, or why there are none.
        questions: those of a file; None where there is none.
        world: whether the models know the reference world, and are asked about it.
    """

    text: str
    documents: Iterable[str] = field(repr=False)
    asked: str
    questions: tuple[Question, ...] | None = field(default=None, repr=False)
    world: bool = False

    def probes(self, lm: LanguageModel, seed: int) -> list[Probe]:
        """The questions for a model's tokenizer; none where there is nothing to ask.

        Raises:
            TaskError: a question has no answer, or none can be used.
        """
        if self.questions is not None:
            return file_probes(lm, self.questions)
        return world_probes(lm, seed=seed) if self.world else []


def material(
    tokenizer: PreTrainedTokenizerBase, text: str | None = None, questions: str | os.PathLike[str] | None = None
) -> Material:
    """Find what two models can be measured on, before anything large is loaded.

    Args:
        tokenizer: of the models: whoever shares that of the reference models is taken to know their world.
        text: what `read_documents` takes; None for the text of the reference world.
        questions: JSON lines as `read_questions` takes them; None asks about the reference world.

    Raises:
        TaskError: no text is given for models that do not know the reference world, or a file cannot be read.

    Example:
        >>> material(load_tokenizer(resolve("reference-dense"))).world  # doctest: +SKIP
        True
    """
    known = knows_world(tokenizer)
    if text is None and not known:
        raise TaskError(
            "these models do not know the reference world, so they need another text to read: give a file, a folder or "
            "a data set (--text)."
        )
    documents = world_documents() if text is None else read_documents(text)
    source = (
        f"the reference world, told in a wording that no model has read (epoch {EPOCH:,})" if text is None else text
    )
    if questions is not None:
        return Material(source, documents, f"the questions of {questions}", tuple(read_questions(questions)))
    if known:
        return Material(source, documents, f"{FACTS} facts of the reference world, four options each", world=True)
    return Material(
        source,
        documents,
        "nothing was asked: these models do not know the reference world; --questions gives others.",
    )
