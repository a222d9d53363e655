"""Where the tuning of a prompt starts."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.bank.find import find_prompt
from idp.bank.prompt import Prompt
from idp.errors import BankError, PromptTooLongError, TaskError, suggest
from idp.tune.examples import Example

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["INITS", "POOL", "initial"]

_LOG = logging.getLogger(__name__)

POOL = 5000
"""Tokens that count as frequent, as in arXiv 2104.08691."""

_HALF_WIDTH = 0.5
_ROWS_MEASURED = 4096


def initial(
    spec: str,
    lm: LanguageModel,
    examples: Sequence[Example],
    num_virtual_tokens: int,
    seed: int,
    bank: PromptBank | None = None,
) -> Tensor:
    """Make the prompt that tuning starts from.

    | spec | rows |
    |---|---|
    | `uniform` | uniform in [-0.5, 0.5]; `uniform:0.1` in [-0.1, 0.1]; `uniform:model` as spread as the model's own |
    | `vocabulary` | embeddings of tokens drawn from the whole vocabulary |
    | `frequent` | of those drawn from the 5,000 most frequent in the examples; `frequent:512` from the 512 |
    | `labels` | of the right answers, the most frequent first, tokens of one averaged; then `frequent` |
    | `text:Be brief. ` | of a text, repeated or cut |
    | `prompt:BANK:NAME` | of a prompt, repeated or cut; with a bank given, `prompt:NAME` |

    Rows of the vocabulary are on the scale the model knows; noise of unit variance is some fifty times too large.
    Special tokens are drawn by none.

    Args:
        spec: one of the above.
        lm: the model.
        examples: what the prompt is tuned on; tokens and answers are counted in it.
        num_virtual_tokens: length `n` of the prompt.
        seed: of what is drawn.
        bank: where `prompt:NAME` is looked up.

    Returns:
        `(n, d)` in fp32 on the CPU.

    Raises:
        TaskError: an unknown spec, an argument it does not take, or nothing to draw from.
        BankError: no such bank or prompt, one of another width, or an empty text.
        PromptTooLongError: as many tokens as the model's context holds, or more.

    Source: arXiv 2104.08691 section 3.2; studied there with 1 to 150 tokens.

    Example:
        >>> initial("text:Answer the question.", lm, examples, 16, seed=0).shape  # doctest: +SKIP
        torch.Size([16, 160])
    """
    if num_virtual_tokens < 1:
        raise TaskError(f"a prompt of {num_virtual_tokens} tokens is not possible; give 1 or more.")
    if num_virtual_tokens >= lm.max_length:
        raise PromptTooLongError(
            f"a prompt of {num_virtual_tokens} tokens leaves no room for a text: the context of {lm.name} holds "
            f"{lm.max_length}. Give fewer."
        )
    kind, colon, argument = spec.partition(":")
    if kind not in INITS:
        raise TaskError(f"unknown start {kind!r} of a prompt. {suggest(kind, INITS)}")
    if colon and not argument:
        raise TaskError(f"nothing stands behind the colon of {spec!r}.")
    with torch.no_grad():
        rows = INITS[kind](_Start(lm, examples, num_virtual_tokens, seed, bank), argument)
    return rows.detach().to("cpu", torch.float32, copy=True)  # (n, d)


@dataclass(frozen=True, eq=False)
class _Start:
    """What a start is made from."""

    lm: LanguageModel
    examples: Sequence[Example]
    length: int
    seed: int
    bank: PromptBank | None

    @property
    def special(self) -> frozenset[int]:
        return frozenset(self.lm.tokenizer.all_special_ids)

    def embed(self, tokens: Sequence[int]) -> Tensor:
        """Embeddings of tokens, `(len(tokens), d)` fp32 on the CPU."""
        return self.lm.embed(torch.tensor(tokens, dtype=torch.long)).float().cpu()

    def drawn(self, pool: Sequence[int], count: int) -> Tensor:
        """Embeddings of tokens drawn from a pool, none twice while there are enough of them, `(count, d)`."""
        if not pool:
            raise TaskError("there are no tokens in the examples to start a prompt from.")
        times = -(-count // len(pool))
        return self.embed(random.Random(self.seed).sample([*pool] * times, count))

    def filled(self, rows: Tensor) -> Tensor:
        """Rows repeated or cut to the length, `(n, d)`."""
        times = -(-self.length // len(rows))
        return rows.repeat(times, 1)[: self.length]


def _uniform(start: _Start, argument: str) -> Tensor:
    half = _model_half_width(start) if argument == "model" else _number(argument or str(_HALF_WIDTH), "uniform")
    generator = torch.Generator().manual_seed(start.seed)
    return half * (2 * torch.rand(start.length, start.lm.hidden_size, generator=generator) - 1)  # (n, d)


def _model_half_width(start: _Start) -> float:
    """Half the width of the uniform distribution that is as spread as the model's embeddings."""
    step = max(1, start.lm.vocab_size // _ROWS_MEASURED)
    return math.sqrt(3) * float(start.embed(range(0, start.lm.vocab_size, step)).std())


def _vocabulary(start: _Start, argument: str) -> Tensor:
    _no_argument("vocabulary", argument)
    known = min(len(start.lm.tokenizer), start.lm.vocab_size)  # embeddings may be padded beyond the tokenizer
    return start.drawn([token for token in range(known) if token not in start.special], start.length)


def _frequent(start: _Start, argument: str) -> Tensor:
    pool = int(_number(argument or str(POOL), "frequent"))
    return start.drawn(_frequent_tokens(start)[:pool], start.length)


def _frequent_tokens(start: _Start) -> list[int]:
    """Tokens of the examples, the most frequent first."""
    counts = Counter(token for example in start.examples for token in (*example.context, *example.right))
    for token in start.special:
        counts.pop(token, None)
    # Equally frequent tokens in the order of their ids, so that the order of the examples does not matter.
    return sorted(counts, key=lambda token: (-counts[token], token))


def _labels(start: _Start, argument: str) -> Tensor:
    _no_argument("labels", argument)
    answers = (example.right for example in start.examples if not example.is_text)
    counts = Counter(tuple(token for token in answer if token not in start.special) for answer in answers)
    counts.pop((), None)
    if not counts:
        raise TaskError("there are no answers in the examples to start a prompt from: choose another start.")
    labels = sorted(counts, key=lambda label: (-counts[label], label))[: start.length]
    means = torch.stack([start.embed(label).mean(dim=0) for label in labels])  # (labels, d)
    missing = start.length - len(labels)
    return torch.cat([means, start.drawn(_frequent_tokens(start)[:POOL], missing)]) if missing else means


def _text(start: _Start, argument: str) -> Tensor:
    if not argument:
        raise TaskError("a start from a text needs one: text:Answer the question.")
    return start.filled(start.lm.embed_prompt(Prompt("start", text=argument)))


def _prompt(start: _Start, argument: str) -> Tensor:
    rows = start.lm.embed_prompt(_find_prompt(start.bank, argument))  # (m, d)
    if len(rows) != start.length:
        _LOG.warning("the prompt %s has %d tokens: it is repeated or cut to %d", argument, len(rows), start.length)
    return start.filled(rows)


def _find_prompt(bank: PromptBank | None, argument: str) -> Prompt:
    """`NAME` of the given bank, or `BANK:NAME`."""
    if not argument:
        raise BankError("a start from a prompt needs one: prompt:BANK:NAME.")
    if bank is not None and (argument in bank.names or ":" not in argument):
        return bank[argument]
    return find_prompt(argument).prompt


def _no_argument(kind: str, argument: str) -> None:
    if argument:
        raise TaskError(f"the start {kind!r} takes nothing behind a colon, but got {argument!r}.")


def _number(text: str, kind: str) -> float:
    """Read the argument of `kind`."""
    whole = kind == "frequent"
    try:
        value = float(int(text) if whole else float(text))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise TaskError(f"cannot read {text!r} in the start {kind}:{text}: write {_EXAMPLES[kind]}.")
    return value


_EXAMPLES = {"frequent": "frequent:512", "uniform": "uniform:0.1 or uniform:model"}

INITS: dict[str, Callable[[_Start, str], Tensor]] = {
    "frequent": _frequent,
    "labels": _labels,
    "prompt": _prompt,
    "text": _text,
    "uniform": _uniform,
    "vocabulary": _vocabulary,
}
"""How each start is made; see `initial`."""
