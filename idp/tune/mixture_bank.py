"""A bank made of a mixture: prompts that can be cached, and the router that chooses among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import TaskError
from idp.select.features import mean_embeddings
from idp.select.smop import Routing, SmopSelector, route
from idp.tune.examples import Example, reading
from idp.tune.mixture import Mixture

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["mixture_bank"]


def mixture_bank(mixture: Mixture, lm: LanguageModel, examples: Sequence[Example]) -> PromptBank:
    """Make a bank of a mixture, with its router as the selector `smop`.

    Trained, a prompt is multiplied by its gate `p_j`, which every input sets anew; the keys and values of a bank's
    prompt are computed once for all inputs. So each prompt is multiplied by its mean gate over the examples that are
    routed to it. That is exact where the gate is the same for all of them (always with one prompt), and an
    approximation by as much as it varies: the spread is in the provenance of each prompt, `gate_spread`, and
    `tests/tune/test_mixture_bank.py` holds the difference in loss below a tenth of what tuning gained.

    Args:
        mixture: the mixture.
        lm: the model it was tuned on.
        examples: whose contexts the gates are measured on, best held out. A prompt that none of them is routed to gets
            the largest gate it has on any.

    Returns:
        The bank of `k` prompts.

    Raises:
        TaskError: no examples.

    Example:
        >>> mixture_bank(mixture, lm, held_out).save("my-mixture")  # doctest: +SKIP
    """
    if not examples:
        raise TaskError("the gates of a mixture are measured on examples, but there are none.")
    routing = route(mixture.router, mean_embeddings(lm, [reading(lm, example) for example in examples]))
    gates = [_gate(routing, number) for number in range(len(mixture.embeddings))]
    prompts = [
        Prompt(f"smop-{number}", embedding=facts["gate"] * embedding, provenance=facts)
        for number, (embedding, facts) in enumerate(zip(mixture.embeddings, gates, strict=True))
    ]
    made = {"held_out_loss": mixture.best.held_out, "best_step": mixture.best.step}
    bank = PromptBank(prompts, fingerprint=lm.fingerprint, provenance=made)
    return bank.with_selector("smop", SmopSelector.of(mixture.router, bank, lm).state())


def _gate(routing: Routing, number: int) -> dict[str, Any]:
    """Mean and spread of the gate of one prompt, and how many inputs are routed to it."""
    own = routing.gates[routing.chosen == number]  # (n,)
    if not len(own):
        return {"gate": float(routing.probabilities[:, number].max()), "gate_spread": 0.0, "routed": 0}
    return {"gate": float(own.mean()), "gate_spread": float(own.std(correction=0)), "routed": len(own)}
