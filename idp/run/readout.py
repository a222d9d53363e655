"""Logits at chosen positions only: the body of a model reads everything, its head just what is asked for.

Over a vocabulary of 32,000 the head of a small model costs as much as half of its layers, and log-probabilities of
every position are the largest tensor of all. `logits_to_keep` cuts whole columns of a batch; here any set of
positions is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from idp.run.forward import call_model, understood

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Readout", "readout"]

MAX_LOGITS = 15 * 2**19
"""Logits computed at once: enough positions for a matrix product to run at full speed, and in fp32 just below the
32 MB from which the C library gives memory back to the system and asks for it anew every time."""


@dataclass(frozen=True, eq=False)
class Readout:
    """How the states of a model, and from them its logits, are computed.

    Attributes:
        lm: the model.
        body: what turns tokens into the states that the head reads; None where it cannot be told apart.
        head: what turns a state into logits.
    """

    lm: LanguageModel = field(repr=False)
    body: nn.Module | None = field(repr=False)
    head: nn.Module | None = field(repr=False)

    def states(self, keep: int, **arguments: Any) -> Tensor:
        """Run a batch.

        Args:
            keep: how many last columns are wanted.
            arguments: public arguments of `forward`.

        Returns:
            `(B, keep, d)`, or where body and head cannot be told apart the logits themselves, `(B, keep, V)`.
        """
        if self.body is None:
            return call_model(self.lm, **arguments, logits_to_keep=keep)
        hidden: Tensor = self.body(**understood(self.body, arguments)).last_hidden_state
        return hidden[:, -keep:]

    def logits(self, states: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Turn states `(P, d)` of `states` into logits, a piece at a time.

        Yields:
            Which of the `P` positions, and their logits in fp32, `(p, V)`, free to be overwritten.
        """
        step = max(1, MAX_LOGITS // self.lm.vocab_size)
        for begin in range(0, len(states), step):
            part = slice(begin, begin + step)
            yield part, states[part].float() if self.head is None else self.head(states[part]).float()


def readout(lm: LanguageModel) -> Readout:
    """How to read a model's logits: by body and head where together they give the very bits that the model gives.

    A model may do more than that (scale or cap its logits), so it is tried once and not assumed.
    """
    return lm.find_out("readout", lambda: _find_readout(lm))


@torch.no_grad()
def _find_readout(lm: LanguageModel) -> Readout:
    config = lm.model.config.get_text_config()
    if getattr(config, "final_logit_softcapping", None):  # rounds to nothing where logits are tiny
        return Readout(lm, None, None)
    ids = torch.tensor([[3, 7, 11, 5]], device=lm.device).clamp(max=lm.vocab_size - 1)
    try:
        split = Readout(lm, lm.model.get_decoder(), lm.model.get_output_embeddings())
        if split.head is not None and split.body is not lm.model:
            states = split.states(4, input_ids=ids, use_cache=False)  # (1, 4, d)
            if torch.equal(split.head(states).float(), call_model(lm, input_ids=ids, use_cache=False).float()):
                return split
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, RuntimeError) and should_reduce_batch_size(error):
            raise  # says nothing about the model; anything else is an architecture of its own kind
    return Readout(lm, None, None)
