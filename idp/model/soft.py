"""Text prompts as the vectors a model reads in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from idp.bank.prompt import Prompt

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["as_soft"]


def as_soft(lm: LanguageModel, prompt: Prompt) -> Prompt:
    """Turn a text prompt into the soft prompt that does the same to one model.

    Args:
        lm: the model.
        prompt: a prompt; a soft one is checked and returned as it is.

    Returns:
        A prompt of the same name with the embeddings of the text's tokens, `(n, d)`, and the text in its provenance.

    Raises:
        BankError: the text has no tokens, or the vectors are of another width than the model's.
        ModelError: prompts cannot be put in front of this model's inputs.

    Source: initialisation from text, arXiv 2104.08691 section 3.2.

    Example:
        >>> as_soft(lm, Prompt("polite", text="Answer politely.")).embedding.shape  # doctest: +SKIP
        torch.Size([4, 2048])
    """
    embedding = lm.embed_prompt(prompt)  # (n, d)
    if prompt.text is None:
        return prompt
    return Prompt(prompt.name, embedding=embedding, provenance={**prompt.provenance, "text": prompt.text})
