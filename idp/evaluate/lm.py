"""lm-eval's view of a model with dynamic prompts.

Tokenisation, rolling windows, stop sequences and chat templates are those of lm-eval's own `hf` model, from which this
one derives; only what is computed differs: every request runs under the prompt that the selector picks for its context,
and all options of one question share one pass.

Use it as `lm_eval.simple_evaluate(model="idp", model_args="pretrained=...,bank=...,selector=router", ...)` after
`import idp.evaluate`, or through `idp eval`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import stop_sequences_criteria

from idp.bank.bank import PromptBank
from idp.errors import IdpError, ModelError, suggest
from idp.evaluate.memo import Answer, Memo
from idp.evaluate.timing import timed
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.run.generate import DynamicPromptModel
from idp.run.score import Request, score
from idp.run.wrap import prepare
from idp.select.base import Selection, Selector

log = logging.getLogger(__name__)

ROW_TOKENS = 256
"""Most tokens that the options of one row have together, unless one alone has more."""

Tokens = tuple[int, ...]
Encodings = dict[tuple[str, str], tuple[list[int], list[int]]]
PairRequest = tuple[tuple[str, str] | None, list[int], list[int]]


@register_model("idp")
class IdpLM(HFLM):
    """A language model whose every input gets its own prompt.

    Args:
        pretrained: alias, path or hub id, or a `LanguageModel`.
        bank: a `PromptBank` or the folder of one; may be left out with ``selector="none"``.
        selector: a name with options (``attention:calibrate=center``), or a fitted `Selector`.
        device: ``auto``, ``cpu``, ``cuda`` ...
        dtype: ``auto``, ``float32``, ``bfloat16`` ...
        batch_size: rows run at once.
        seed: of selectors that draw.
        allow_mismatch: whether a bank made for another model may be used.
        memo: where answers are kept; in memory unless given.
        encodings: token ids of pairs of texts, to be shared by arms with one tokenizer.
        advance: called with the number of requests just answered.
        kwargs: further arguments of lm-eval's `hf` model.

    Attributes:
        seconds: model and selection time of all requests so far, each counted as if computed for this arm alone.

    Raises:
        IdpError: any of the arguments does not fit, each with its own message.
    """

    def __init__(
        self,
        pretrained: str | LanguageModel,
        bank: str | PromptBank | None = None,
        selector: str | Selector | None = "router",
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | str = 32,
        seed: int = 0,
        allow_mismatch: bool = False,
        memo: Memo | None = None,
        encodings: Encodings | None = None,
        advance: Callable[[int], None] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("max_batch_size", None)  # lm-eval always passes it; rows are counted, not probed
        known = {*inspect.signature(HFLM).parameters, *inspect.signature(IdpLM).parameters} - {"kwargs"}
        if unknown := sorted(set(kwargs) - known):  # the base class would pass them over
            raise IdpError(f"unknown model argument {unknown[0]!r}. {suggest(unknown[0], known)}")
        lm = pretrained if isinstance(pretrained, LanguageModel) else load(pretrained, device=device, dtype=dtype)
        # lm-eval reads "selector=none" in a string of arguments as None.
        chosen_by = "none" if selector is None else selector
        self.prompted: DynamicPromptModel = prepare(lm, bank, chosen_by, allow_mismatch=allow_mismatch, seed=seed)
        super().__init__(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=_rows(batch_size), **kwargs)
        self.memo = memo or Memo(None, "")
        self._encodings: Encodings = {} if encodings is None else encodings
        self.advance = advance or (lambda count: None)
        self.seconds = 0.0
        self._selections: dict[str | Tokens, Selection] = {}
        self._choice_of: dict[Tokens, int] = {}

    @cached_property  # lm-eval and we ask for it with every request
    def max_length(self) -> int:
        """Context length in tokens that is left beside the longest prompt of the bank."""
        bank, store = self.prompted.bank, self.prompted.store
        return self.prompted.lm.max_length - max((store.length(i) for i in range(len(bank or ()))), default=0)

    def selection_of(self, context: str) -> Selection:
        """What was chosen for a context that has been run (of a rolling request: for any text)."""
        return self._selections.get(context) or self._selections[(self.prefix_token_id,)]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokenise as lm-eval does, each pair once."""
        pair = (context, continuation)
        if pair not in self._encodings:
            self._encodings[pair] = super()._encode_pair(context, continuation)
        return self._encodings[pair]

    def context_ids(self, instance: Instance) -> Tokens:
        """The tokens that the selector sees of a request."""
        if instance.request_type == "loglikelihood_rolling" or not instance.args[0]:
            return (self.prefix_token_id,)
        if instance.request_type == "generate_until":
            return tuple(self.tok_encode(instance.args[0]))
        return tuple(self._encode_pair(*instance.args)[0])

    def _select(self, contexts: dict[str | Tokens, Sequence[int]]) -> None:
        """Choose prompts for contexts not seen before; the time counts."""
        new = {key: ids for key, ids in contexts.items() if key not in self._selections}
        if not new:
            return
        chosen, seconds = timed(lambda: self.prompted.selector.select_batch(list(new.values())))
        self._selections.update(zip(new, chosen, strict=True))
        self.seconds += seconds

    def _answers(
        self, keys: list[Any], compute: Callable[[list[int]], Iterable[list[tuple[int, Any, float]]]]
    ) -> list[Answer]:
        """Look keys up, compute what is missing chunk by chunk, keep each chunk at once."""
        found = self.memo.get(keys)
        missing = [index for index, answer in enumerate(found) if answer is None]
        self.advance(len(keys) - len(missing))
        for chunk in compute(missing):
            self.memo.put((keys[index], value, seconds) for index, value, seconds in chunk)
            for index, value, seconds in chunk:
                found[index] = Answer(value, seconds)
        answers = [answer for answer in found if answer is not None]
        self.seconds += sum(answer.seconds for answer in answers)
        return answers

    def _loglikelihood_tokens(
        self, requests: list[PairRequest], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Score (context, continuation) pairs; pairs with one context share a row."""
        questions = [self._question(request) for request in requests]
        self._select(dict(reversed(questions)))
        choices = [self._selections[key].index for key, _ in questions]
        rows: dict[tuple[int, Tokens], dict[Tokens, None]] = {}
        pairs = [self._truncate(request) for request in requests]
        for choice, (context, continuation) in zip(choices, pairs, strict=True):
            rows.setdefault((choice, context), {})[continuation] = None
        wanted = [
            (choice, Request(context, part)) for (choice, context), options in rows.items() for part in _parts(options)
        ]
        scores = self._score(wanted)
        return [
            scores[choice, context][continuation]
            for choice, (context, continuation) in zip(choices, pairs, strict=True)
        ]

    def _score(self, wanted: list[tuple[int, Request]]) -> dict[tuple[int, Tokens], dict[Tokens, tuple[float, bool]]]:
        size = int(self.batch_size)

        def compute(missing: list[int]) -> Iterable[list[tuple[int, Any, float]]]:
            order = sorted(missing, key=lambda index: -wanted[index][1].packed_length)
            for start in range(0, len(order), 16 * size):
                part = order[start : start + 16 * size]
                requests, choices = [wanted[i][1] for i in part], [wanted[i][0] for i in part]
                done = score(self.prompted.store, requests, choices, batch_size=size, advance=self.advance)
                yield [
                    (i, [list(s) for s in scored.scores], scored.seconds) for i, scored in zip(part, done, strict=True)
                ]

        keys = [("score", self._prompt_id(choice), r.context, r.continuations) for choice, r in wanted]
        found: dict[tuple[int, Tokens], dict[Tokens, tuple[float, bool]]] = {}
        for (choice, request), answer in zip(wanted, self._answers(keys, compute), strict=True):
            found.setdefault((choice, request.context), {}).update(
                (continuation, (float(value[0]), bool(value[1])))
                for continuation, value in zip(request.continuations, answer.value, strict=True)
            )
        return found

    def _question(self, request: PairRequest) -> tuple[str | Tokens, Tokens]:
        """What must share one prompt, and the tokens it is chosen by.

        That is all options of a question, and all windows of a running text, which has no context but the prefix.
        """
        text, context, _ = request
        return (text[0], tuple(context)) if text else ((self.prefix_token_id,), (self.prefix_token_id,))

    def _truncate(self, request: PairRequest) -> tuple[Tokens, Tokens]:
        """Cut a context from the left where it does not fit, as lm-eval's contract asks."""
        _, context, continuation = request
        room = self.max_length + 1 - len(continuation)
        if len(context) <= room:
            return tuple(context), tuple(continuation)
        log.warning(
            "a context of %d tokens was cut to its last %d to fit beside the prompt", len(context), max(1, room)
        )
        return tuple(context[-max(1, room) :]), tuple(continuation)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate under the chosen prompts; the base class batches, cuts and stops."""
        tokens = {str(request.args[0]): tuple(self.tok_encode(request.args[0])) for request in requests}
        self._select({context: ids for context, ids in tokens.items()})
        size = int(self.batch_size)

        def compute(missing: list[int]) -> Iterable[list[tuple[int, Any, float]]]:
            order = sorted(missing, key=lambda index: -len(tokens[str(requests[index].args[0])]))
            for start in range(0, len(order), size):
                part = order[start : start + size]
                contexts = [str(requests[i].args[0]) for i in part]
                self._choice_of = {tokens[context]: self._selections[context].index for context in contexts}
                parent = super(IdpLM, self).generate_until
                texts, seconds = timed(partial(parent, [requests[i] for i in part], disable_tqdm=True))
                self.advance(len(part))
                yield [(i, text, seconds / len(part)) for i, text in zip(part, texts, strict=True)]

        keys = [
            ("generate", self._prompt_id(self._selections[str(request.args[0])].index), self.max_length, *request.args)
            for request in requests
        ]
        return [str(answer.value) for answer in self._answers(keys, compute)]

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any) -> torch.Tensor:
        """Generate for one padded batch under the prompts chosen before."""
        mask = kwargs.pop("attention_mask")
        rows = [tuple(row[keep].tolist()) for row, keep in zip(context, mask.bool(), strict=True)]
        if not kwargs.get("do_sample"):
            kwargs = {**kwargs, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        criteria = stop_sequences_criteria(self.tokenizer, stop, context.shape[1], context.shape[0])
        sequences: torch.Tensor = self.prompted.generate_with(
            [self._choice_for(row) for row in rows],
            context,
            attention_mask=mask,
            max_length=max_length,
            stopping_criteria=criteria,
            pad_token_id=self.tokenizer.pad_token_id,
            **kwargs,
        )
        return sequences

    def _choice_for(self, row: Tokens) -> int:
        """The choice for a row of this batch, whose context may have been cut from the left to fit."""
        if row in self._choice_of:
            return self._choice_of[row]
        found = {choice for ids, choice in self._choice_of.items() if ids[-len(row) :] == row}
        if len(found) != 1:
            raise ModelError("contexts under different prompts were cut to the same end: shorten them or the prompts.")
        return found.pop()

    def _prompt_id(self, choice: int) -> str:
        """What a prompt is, whatever bank it stands in and wherever."""
        bank = self.prompted.bank
        return "none" if choice == -1 or bank is None else bank.prompts[choice].digest


def _parts(options: Iterable[Tokens]) -> list[tuple[Tokens, ...]]:
    """Cut the continuations of one context into rows.

    The options of a question share a row. Whole texts share a context too, the prefix token, but in one row they
    would only be long: the mask grows with the square.
    """
    parts: list[list[Tokens]] = []
    room = 0
    for option in options:
        if not parts or len(option) > room:
            parts.append([])
            room = ROW_TOKENS
        parts[-1].append(option)
        room -= len(option)
    return [tuple(part) for part in parts]


def _rows(batch_size: int | str) -> int:
    if isinstance(batch_size, str) and batch_size.startswith("auto"):
        return 32
    try:
        rows = int(batch_size)
    except ValueError:
        rows = 0
    if rows < 1:
        raise IdpError(f"batch_size must be a positive number or 'auto', not {batch_size!r}.")
    return rows
