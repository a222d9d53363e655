"""A conversation, which keeps the prompt that was chosen for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from idp.errors import ModelError
from idp.run.options import GenerationOptions
from idp.run.texts import Message, encode_chat

if TYPE_CHECKING:
    from idp.dynamic.model import DynamicPromptModel
    from idp.select.base import Selection

__all__ = ["Conversation"]


class Conversation:
    """Turns of a user and a model, all under the prompt chosen for the first, unless told otherwise.

    A prompt that changed between turns would change the voice the model has spoken with; a conversation that wanders
    from topic to topic may gain from it all the same.

    Args:
        model: the model with its prompts.
        system: what the system message says; None goes without.
        choose_anew: whether a prompt is chosen at every turn, from the whole conversation so far.

    Attributes:
        messages: all turns so far, as chat templates read them.
        selection: the choice of the last turn; None before the first.

    Raises:
        ModelError: the tokenizer has no chat template.

    Example:
        >>> talk = model.conversation(system="Be brief.")  # doctest: +SKIP
        >>> talk.say("Who wrote Faust?", max_new_tokens=20)  # doctest: +SKIP
        'Goethe.'
        >>> talk.say("When did he live?")  # under the same prompt  # doctest: +SKIP
        '1749 to 1832.'
    """

    def __init__(self, model: DynamicPromptModel, system: str | None = None, *, choose_anew: bool = False) -> None:
        """Begin with no turn."""
        self._model = model
        self._choose_anew = choose_anew
        self.messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        self.selection: Selection | None = None

    def say(self, text: str, **kwargs: Any) -> str:
        """Say something, and get the answer; both are added to the conversation.

        Args:
            text: what the user says.
            kwargs: as for `generate`; one answer only.

        Returns:
            The answer, without special tokens.

        Raises:
            ModelError: several answers were asked for, or the template does not take the conversation.
            PromptTooLongError: the conversation has become too long; it is left as it was.
        """
        options = GenerationOptions(self._model.model, kwargs.get("generation_config"), kwargs)
        if (options.get("num_return_sequences") or 1) > 1:
            raise ModelError("a conversation goes on with one answer: leave num_return_sequences out.")
        turn = {"role": "user", "content": text}
        ids = encode_chat(self._model.lm, [*self.messages, turn])
        kept = None if self._choose_anew else self.selection
        selection = self._model.selector.select(ids) if kept is None else kept
        [answer] = self._model._answers([ids], kwargs, [selection])
        self.messages += [turn, {"role": "assistant", "content": answer}]
        self.selection = selection
        return answer
