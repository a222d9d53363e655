"""Which way of sharing a context a model allows: tried once, not assumed.

A model may take a mask and yet not obey it, or count positions and windows in columns, padding included. So what it
answers in each way to two short questions, of unequal length and behind unequal prompts, is compared with rows of one
option run alone. How large a difference may be is measured too: by what it would be if one option saw another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from accelerate.utils.memory import should_reduce_batch_size

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import IdpError
from idp.run.forward import attention_window, takes_4d_masks
from idp.run.packing import Request, lay_out
from idp.run.passes import Job, Pass, run_expanded, run_packed, run_plain
from idp.run.readout import readout
from idp.run.store import PrefixStore

if TYPE_CHECKING:
    from torch import Tensor

    from idp.model.loaded import LanguageModel

__all__ = ["PASSES", "Way", "bears_gaps", "bears_padding", "reach", "way_of"]

log = logging.getLogger(__name__)

Way = Literal["packed", "expanded", "plain"]

PASSES: dict[Way, Pass] = {"packed": run_packed, "expanded": run_expanded, "plain": run_plain}

_FAILURES = (IdpError, AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
_SHARE = 0.05  # of the effect of seeing another option; rounding in 16 bits stays below it, a wrong mask does not


class _Trial(NamedTuple):
    """Two questions to try a model on, and what it answers to their options alone, `(N,)` log-probabilities."""

    store: PrefixStore
    jobs: list[Job]
    expected: Tensor
    allowed: float

    def passes(self, run: Pass) -> bool:
        return bool((_log_probs(self.store, self.jobs, run) - self.expected).abs().max() <= self.allowed)


def way_of(lm: LanguageModel) -> Way:
    """Find the cheapest exact way to score several options behind one context.

    Returns:
        `packed`, one pass with all options in a row, where the model obeys a mask for each query; else `expanded`,
        two passes with copies of the context's keys and values; else `plain`, a row of its own for every option.
    """
    return lm.find_out("way", lambda: _find_way(lm))


def _find_way(lm: LanguageModel) -> Way:
    if takes_4d_masks(lm) and _exact(lm, "packed"):
        return "packed"
    way: Way = "expanded" if bears_gaps(lm) else "plain"
    log.info("%s takes no mask for each query: options are scored the %r way", lm.name, way)
    return way


def reach(lm: LanguageModel, way: Way) -> int:
    """How many columns a batch may have for options to share a context, prompts and padding included.

    Some models count a sliding window in columns whatever the mask says, and behind copies padding would count too.
    """
    window = attention_window(lm)
    if way == "plain" or (way == "expanded" and window is not None):
        return 0
    return window or lm.max_length


def bears_gaps(lm: LanguageModel) -> bool:
    """Whether padding may stand between a row's prompt and its input (not where positions are counted in columns)."""
    return lm.find_out("bears gaps", lambda: _exact(lm, "expanded"))


def bears_padding(lm: LanguageModel) -> bool:
    """Whether plain rows may be padded on the left (not where padding enters a recurrent state)."""
    return lm.find_out("bears padding", lambda: _survived(lambda: _trial(lm, prompts=False).passes(run_plain)))


def _exact(lm: LanguageModel, way: Way) -> bool:
    return _survived(lambda: _trial(lm, prompts=True).passes(PASSES[way]))


def _survived(compare: Callable[[], bool]) -> bool:
    """The answer of a trial; an error counts as no, but for a lack of memory, which says nothing about the model."""
    try:
        return compare()
    except _FAILURES as error:
        if isinstance(error, RuntimeError) and should_reduce_batch_size(error):
            raise
        log.debug("a trial failed", exc_info=error)
        return False


def _trial(lm: LanguageModel, *, prompts: bool) -> _Trial:
    """Make the questions from tokens all over the vocabulary: those with small numbers are often hardly trained."""
    tokens = [lm.vocab_size * place // 24 for place in range(1, 24)]
    bank = (
        PromptBank([Prompt("trial", embedding=lm.embed(torch.tensor(tokens[:3])).float().cpu())]) if prompts else None
    )
    store = PrefixStore(lm, bank)
    first, second = tuple(tokens[3:8]), tuple(tokens[8:13])
    requests = [Request(tuple(tokens[13:16]), (first, second)), Request(tuple(tokens[16:23]), (second, first))]
    if not prompts:  # rows of one option each
        requests = [Request(request.context, request.continuations[:1]) for request in requests]
    jobs = [Job(number, 0, request, 0 if prompts and number == 0 else -1) for number, request in enumerate(requests)]
    expected = torch.cat([_alone(store, job, option) for job in jobs for option in job.request.continuations])
    seen = _alone(store, jobs[0], first, behind=second)  # what the first option would say if it saw the second
    return _Trial(store, jobs, expected, _SHARE * float((seen - expected[: len(first)]).abs().max()))


def _alone(store: PrefixStore, job: Job, option: tuple[int, ...], behind: tuple[int, ...] = ()) -> Tensor:
    request = Request((*job.request.context, *behind), (option,))
    return _log_probs(store, [Job(0, 0, request, job.choice)], run_plain)


@torch.no_grad()
def _log_probs(store: PrefixStore, jobs: list[Job], run: Pass) -> Tensor:
    """Log-probabilities of all tokens of the jobs' options, `(N,)`, on the CPU."""
    layout = lay_out([job.request for job in jobs], store.lm.pad_token_id)
    states = run(store, jobs, layout)
    logits = torch.cat([part for _, part in readout(store.lm).logits(states)])  # (P, V)
    return logits.log_softmax(-1).cpu()[layout.sources, layout.targets]
