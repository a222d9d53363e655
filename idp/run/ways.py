"""Which way of sharing a context a model allows: tried once, not assumed.

A model may take a mask and yet not obey it (a recurrent layer, a local attention of its own), so what it answers to a
request of four tokens behind a prompt of two is compared with plain rows.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import torch

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import IdpError
from idp.run.forward import takes_4d_masks
from idp.run.packing import Request, lay_out
from idp.run.passes import Job, Pass, run_expanded, run_packed, run_plain
from idp.run.readout import readout
from idp.run.store import PrefixStore

if TYPE_CHECKING:
    from torch import Tensor

    from idp.model.loaded import LanguageModel

__all__ = ["PASSES", "Way", "way_of"]

log = logging.getLogger(__name__)

Way = Literal["packed", "expanded", "plain"]

PASSES: dict[Way, Pass] = {"packed": run_packed, "expanded": run_expanded, "plain": run_plain}

_FAILURES = (IdpError, AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)


def way_of(lm: LanguageModel) -> Way:
    """Find the cheapest exact way to score several options behind one context.

    Returns:
        `packed`, one pass with all options in a row, where the model obeys a mask for each query; else `expanded`,
        two passes with copies of the context's keys and values; else `plain`, a row of its own for every option.
    """
    if "way" not in lm.traits:
        lm.traits["way"] = _tried(lm)
        if lm.traits["way"] != "packed":
            log.info("%s takes no mask for each query: options are scored the %r way", lm.name, lm.traits["way"])
    way: Way = lm.traits["way"]
    return way


def _tried(lm: LanguageModel) -> Way:
    tolerance = 1e-3 if lm.dtype in (torch.float32, torch.float64) else 0.5
    a, b, c, d = (min(token, lm.vocab_size - 1) for token in (3, 7, 11, 5))
    request = Request((a, b), ((c, d), (d, c)))
    try:
        prompt = Prompt("trial", embedding=lm.embed(torch.tensor([c, b])).float().cpu())
        store = PrefixStore(lm, PromptBank([prompt]))
        rows = [Job(0, 0, Request(request.context, (option,)), 0) for option in request.continuations]
        expected = _log_probs(store, rows, run_plain)
    except _FAILURES as error:
        log.debug("no prompt can be put before a plain row", exc_info=error)
        return "plain"
    ways: tuple[Way, ...] = ("packed", "expanded") if takes_4d_masks(lm) else ("expanded",)
    for way in ways:
        try:
            got = _log_probs(store, [Job(0, 0, request, 0)], PASSES[way])
        except _FAILURES as error:
            log.debug("the %s way failed", way, exc_info=error)
            continue
        if torch.allclose(got, expected, atol=tolerance, rtol=0):
            return way
    return "plain"


@torch.no_grad()
def _log_probs(store: PrefixStore, jobs: list[Job], run: Pass) -> Tensor:
    """Log-probabilities of all tokens of the jobs' options, `(N,)`, on the CPU."""
    layout = lay_out([job.request for job in jobs], store.lm.pad_token_id)
    states = run(store, jobs, layout)
    logits = torch.cat([part for _, part in readout(store.lm).logits(states)])  # (P, V)
    return logits.log_softmax(-1).cpu()[layout.sources, layout.targets]
