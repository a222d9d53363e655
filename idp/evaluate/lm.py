"""lm-eval's view of a model with dynamic prompts.

Tokenisation, rolling windows, stop sequences and chat templates are those of lm-eval's own `hf` model, from which this
one derives; only what is computed differs: every request runs under the prompt that the selector picks for its context,
and all options of one question share one pass.

Use it as `lm_eval.simple_evaluate(model="idp", model_args="pretrained=...,bank=...,selector=router", ...)` after
`import idp.evaluate`, or through `idp eval`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import stop_sequences_criteria
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from idp.bank.bank import PromptBank
from idp.dynamic.mixing import Mixture
from idp.dynamic.model import DynamicPromptModel
from idp.dynamic.wrap import prepare
from idp.errors import PromptTooLongError
from idp.evaluate.arguments import TAKEN, check_arguments, check_tokens, context_length, rows_wanted
from idp.evaluate.contexts import last, seen_contexts
from idp.evaluate.memo import Answer, Memo
from idp.evaluate.ownership import claim, describe
from idp.evaluate.parallel import Team, accelerator
from idp.evaluate.tasks import quiet
from idp.evaluate.timing import timed
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.run.batching import BatchSize, run_batches
from idp.run.inputs import pad_left
from idp.run.packing import parts_of
from idp.run.score import Request, score
from idp.select.base import Selection, Selector
from idp.select.registry import AUTO

ROWS = 32
"""Rows that are generated at once where no number is given."""

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
        device: ``auto``, ``cpu``, ``cuda`` ...; under `accelerate launch` each process has its own.
        dtype: ``auto``, ``float32``, ``bfloat16`` ...
        batch_size: rows run at once, or ``auto`` to find a size for the device; less of them once memory runs out.
        max_length: context length in tokens, prompt included, where less than the model's own is wanted.
        seed: of selectors that draw.
        allow_mismatch: whether a bank made for another model may be used.
        memo: where answers are kept; in memory unless given.
        encodings: token ids of pairs of texts, to be shared by arms with one tokenizer.
        advance: called with the number of requests just answered.
        team: processes that run the same evaluation in step and share its work. Without it, processes started
            together by `accelerate launch` each answer the requests that lm-eval gives them.
        kwargs: further arguments of lm-eval's `hf` model, with the meaning they have there: ``add_bos_token``,
            ``prefix_token_id``, ``think_end_token``, ``enable_thinking``, ``chat_template_args``. Those that do not
            work with prompts are refused (see `idp.evaluate.arguments`).

    Attributes:
        seconds: model and selection time of all requests so far, each counted as if computed for this arm alone.

    lm-eval's caches work. The one of requests (``cache_requests``) holds texts, the same for all models. The one of
    answers (``use_cache=PATH``) does not know about prompts, so a file belongs to the model, bank, selector and
    arguments it was begun with, and is refused to others.

    Raises:
        IdpError: any of the arguments does not fit, each with its own message.
    """

    mixture: Mixture | None = None
    """How prompts are mixed, where they are (see `idp.evaluate.mixtures`)."""

    def __init__(
        self,
        pretrained: str | LanguageModel,
        bank: str | PromptBank | None = None,
        selector: str | Selector | None = AUTO,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | str = 32,
        max_length: int | None = None,
        seed: int = 0,
        allow_mismatch: bool = False,
        memo: Memo | None = None,
        encodings: Encodings | None = None,
        advance: Callable[[int], None] | None = None,
        team: Team | None = None,
        **kwargs: Any,
    ) -> None:
        check_arguments(kwargs, set(inspect.signature(IdpLM).parameters) - {"kwargs"})
        together = accelerator() if team is None else None
        place = device if together is None else together.device
        lm = pretrained if isinstance(pretrained, LanguageModel) else load(pretrained, device=place, dtype=dtype)
        rows = rows_wanted(batch_size)
        check_tokens(lm, kwargs.get("add_bos_token"), kwargs.get("prefix_token_id"))
        # lm-eval reads "selector=none" in a string of arguments as None.
        chosen_by = "none" if selector is None else selector
        self.prompted: DynamicPromptModel = prepare(lm, bank, chosen_by, allow_mismatch=allow_mismatch, seed=seed)
        taken = {name: kwargs[name] for name in TAKEN if name in kwargs}
        with quiet():  # it warns that it leaves the processes to us
            super().__init__(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=rows or ROWS, **taken)
        self._scoring, self._generating = BatchSize(rows), BatchSize(rows or ROWS)  # they shrink when memory runs out
        if together is not None:
            self.accelerator, self._rank, self._world_size = together, together.process_index, together.num_processes
        self.team = team or Team()
        self.memo = memo or Memo(None, "")
        self._encodings: Encodings = {} if encodings is None else encodings
        self.advance = advance or (lambda count: None)
        self.seconds = 0.0
        self._chosen: dict[tuple[str | Tokens, tuple[Tokens, ...]], Selection] = {}  # by context and options
        self._selections: dict[str | Tokens, Selection] = {}  # of the contexts that were run last
        self._batch: list[str] = []
        self._seen: Sequence[str | None] = ()  # of the requests at work, where options have contexts of their own
        self._whole_length = context_length(lm, max_length)
        if self.max_length < 1:
            raise PromptTooLongError(
                f"the longest prompt takes {self._whole_length - self.max_length} tokens, which leaves nothing of a "
                f"context of {self._whole_length}; choose shorter prompts or a larger max_length."
            )

    @cached_property  # lm-eval and we ask for it with every request
    def max_length(self) -> int:
        """Context length in tokens that is left beside the longest prompt of the bank."""
        bank, store = self.prompted.bank, self.prompted.store
        return self._whole_length - max((store.length(i) for i in range(len(bank or ()))), default=0)

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Let lm-eval keep answers (``use_cache``), in a file that holds no other arm's.

        Raises:
            IdpError: it does.
        """
        if cache_hook.dbdict is not None:
            depends = (self.max_length, self.add_bos_token, self.prefix_token_id, self.think_end_token)
            mixture = () if self.mixture is None else (self.mixture,)
            claim(cache_hook.dbdict, describe(self.prompted, *depends, *mixture))
        super().set_cache_hook(cache_hook)

    def selection_of(self, context: str) -> Selection:
        """What was chosen for a context that has been run (of a rolling request: for any text)."""
        return self._selections.get(context) or self._selections[(self.prefix_token_id,)]

    def prompt_of(self, context: str) -> tuple[str | None, int]:
        """What a context that has been run was behind: what to call it, None for no prompt, and its tokens."""
        index, bank = self.selection_of(context).index, self.prompted.bank
        name = None if index == -1 or bank is None else bank.prompts[index].name
        return name, self.prompted.store.length(index)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokenise as lm-eval does, each pair once."""
        pair = (context, continuation)
        if pair not in self._encodings:
            self._encodings[pair] = super()._encode_pair(context, continuation)
        return self._encodings[pair]

    def context_ids(self, instance: Instance, seen: str | None = None) -> Tokens:
        """The tokens that the selector sees of a request: those of ``seen`` where its context holds an option."""
        if seen is not None:
            return self._stem_ids(seen)
        if instance.request_type == "loglikelihood_rolling" or not instance.args[0]:
            return (self.prefix_token_id,)
        if instance.request_type == "generate_until":
            return tuple(self.tok_encode(instance.args[0]))
        return tuple(self._encode_pair(*instance.args)[0])

    def _select(
        self,
        contexts: dict[str | Tokens, Sequence[int]],
        options: dict[str | Tokens, tuple[Tokens, ...]] | None = None,
    ) -> None:
        """Choose prompts for contexts, those seen before as before; the time counts.

        Args:
            contexts: token ids.
            options: the possible answers of those where there are any, for selectors that look at them.
        """
        known = options if options and self.prompted.selector.answers else {}
        asked = {key: (key, tuple(known.get(key, ()))) for key in contexts}
        if new := [key for key in contexts if asked[key] not in self._chosen]:
            rows = [contexts[key] for key in new]
            choose = partial(self.prompted.selector.select_among, rows, [asked[key][1] for key in new])
            chosen, seconds = self.team.agree(lambda: timed(choose))
            self._chosen.update(zip((asked[key] for key in new), chosen, strict=True))
            self.seconds += seconds
        self._selections.update((key, self._chosen[question]) for key, question in asked.items())

    def _answers(
        self, keys: list[Any], compute: Callable[[list[int]], Iterable[list[tuple[int, Any, float]]]]
    ) -> list[Answer]:
        """Look keys up, compute what is missing chunk by chunk, keep each chunk at once."""
        found = self.team.agree(lambda: self.memo.get(keys))
        missing = [index for index, answer in enumerate(found) if answer is None]
        self.advance(len(keys) - len(missing))
        for mine in compute(missing):
            chunk = self.team.gather(mine)
            self.advance(len(chunk) - len(mine))
            if self.team.is_first:
                self.memo.put((keys[index], value, seconds) for index, value, seconds in chunk)
            for index, value, seconds in chunk:
                found[index] = Answer(value, seconds)
        answers = [answer for answer in found if answer is not None]
        self.seconds += sum(answer.seconds for answer in answers)
        return answers

    def _stem_ids(self, seen: str) -> Tokens:
        return tuple(self.tok_encode(seen)) if seen else (self.prefix_token_id,)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Score continuations; where options have contexts of their own, what these share is what is chosen by."""
        self._seen = seen_contexts(requests)
        try:
            found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        finally:
            self._seen = ()
        return found

    def _loglikelihood_tokens(
        self, requests: list[PairRequest], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Score (context, continuation) pairs; pairs with one context share a row."""
        stems = self._seen or [None] * len(requests)
        questions = [self._question(request, seen) for request, seen in zip(requests, stems, strict=True)]
        options: dict[str | Tokens, dict[Tokens, None]] = {}
        for (key, _), (text, _, option), seen in zip(questions, requests, stems, strict=True):
            if text is not None and seen is None:  # windows of a running text, or what is behind a blank: no answers
                options.setdefault(key, {})[tuple(option)] = None
        # An only continuation is no option but the right answer, which nothing that chooses may see.
        several = {key: tuple(given) for key, given in options.items() if len(given) > 1}
        self._select(dict(reversed(questions)), several)
        return self._answered([key for key, _ in questions], [self._truncate(request) for request in requests])

    def _answered(self, keys: list[str | Tokens], pairs: list[tuple[Tokens, Tokens]]) -> list[tuple[float, bool]]:
        """Score pairs, each as was chosen for its key."""
        return self._under([self._selections[key].index for key in keys], pairs)

    def _under(self, choices: list[int], pairs: list[tuple[Tokens, Tokens]]) -> list[tuple[float, bool]]:
        """Score pairs, each under a prompt; those with one context and one prompt share a row."""
        rows: dict[tuple[int, Tokens], dict[Tokens, None]] = {}
        for choice, (context, continuation) in zip(choices, pairs, strict=True):
            rows.setdefault((choice, context), {})[continuation] = None
        wanted = [
            (choice, Request(context, part))
            for (choice, context), options in rows.items()
            for part in parts_of(options)
        ]
        scores = self._score(wanted)
        return [
            scores[choice, context][continuation]
            for choice, (context, continuation) in zip(choices, pairs, strict=True)
        ]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score whole texts in windows, cut as lm-eval cuts them.

        The base class lets processes wait for each other here, which models of their own need not; where one of them
        finds all its answers in lm-eval's cache, the others would wait forever.
        """
        texts = [self._windows(str(request.args[0])) for request in requests]
        scores = iter(self._loglikelihood_tokens([window for windows in texts for window in windows]))
        return [sum((next(scores)[0] for _ in windows), 0.0) for windows in texts]

    def _windows(self, text: str) -> list[PairRequest]:
        """Each token of a text once, behind as many of those before it as fit."""
        windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
        return [(None, *make_disjoint_window(window)) for window in windows]

    def _score(self, wanted: list[tuple[int, Request]]) -> dict[tuple[int, Tokens], dict[Tokens, tuple[float, bool]]]:
        def compute(missing: list[int]) -> Iterable[list[tuple[int, Any, float]]]:
            order = sorted(missing, key=lambda index: -wanted[index][1].packed_length)
            step = 16 * int(self.batch_size) * self.team.size
            for start in range(0, len(order), step):
                part = self.team.share(order[start : start + step])
                requests, choices = [wanted[i][1] for i in part], [wanted[i][0] for i in part]
                done = score(self.prompted.store, requests, choices, batch_size=self._scoring, advance=self.advance)
                yield [
                    (i, [list(s) for s in scored.scores], scored.seconds) for i, scored in zip(part, done, strict=True)
                ]

        keys = [("score", self.prompt_id(choice), r.context, r.continuations) for choice, r in wanted]
        found: dict[tuple[int, Tokens], dict[Tokens, tuple[float, bool]]] = {}
        for (choice, request), answer in zip(wanted, self._answers(keys, compute), strict=True):
            found.setdefault((choice, request.context), {}).update(
                (continuation, (float(value[0]), bool(value[1])))
                for continuation, value in zip(request.continuations, answer.value, strict=True)
            )
        return found

    def _question(self, request: PairRequest, seen: str | None) -> tuple[str | Tokens, Tokens]:
        """What must share one prompt, and the tokens it is chosen by.

        That is all options of a question, and all windows of a running text, which has no context but the prefix.
        """
        if seen is not None:
            return seen, self._stem_ids(seen)
        text, context, _ = request
        return (text[0], tuple(context)) if text else ((self.prefix_token_id,), (self.prefix_token_id,))

    def _truncate(self, request: PairRequest) -> tuple[Tokens, Tokens]:
        """Make room for a continuation."""
        _, context, continuation = request
        return tuple(last(context, max(1, self.max_length + 1 - len(continuation)))), tuple(continuation)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate under the chosen prompts; the base class batches, cuts and stops."""
        tokens = {str(request.args[0]): tuple(self.tok_encode(request.args[0])) for request in requests}
        self._select({context: ids for context, ids in tokens.items()})

        def length(index: int) -> int:
            return len(tokens[str(requests[index].args[0])])

        def generate(batch: list[int]) -> list[str]:
            texts: list[str] = super(IdpLM, self).generate_until([requests[i] for i in batch], disable_tqdm=True)
            self.advance(len(batch))
            return texts

        def compute(missing: list[int]) -> Iterable[list[tuple[int, Any, float]]]:
            order = sorted(missing, key=lambda index: -length(index))
            step = int(self.batch_size) * self.team.size
            for start in range(0, len(order), step):
                part = self.team.share(order[start : start + step])
                done = run_batches(part, length, generate, self._generating, self.prompted.lm)
                yield [
                    (i, text, seconds / len(batch))
                    for batch, texts, seconds in done
                    for i, text in zip(batch, texts, strict=True)
                ]

        depends = (self.max_length, self.add_bos_token, self.think_end_token)
        keys = [("generate", self._prompts_id(str(request.args[0])), *depends, *request.args) for request in requests]
        return [str(answer.value) for answer in self._answers(keys, compute)]

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokenise a batch for generation, each text as if it were alone, and remember which texts they are."""
        self._batch = list(strings)
        rows = [self.tok_encode(text) or [self.prefix_token_id] for text in strings]
        room = left_truncate_len or self.max_length
        return pad_left([last(row, room) for row in rows], self.prompted.lm.pad_token_id)

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any) -> torch.Tensor:
        """Generate for the batch that was tokenised last, under the prompts chosen before."""
        choices = [self._selections[text].index for text in self._batch]
        return self._generate_under(choices, context, max_length, stop, **kwargs)

    def _generate_under(
        self, choices: list[int], context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any
    ) -> torch.Tensor:
        """Generate for rows, each under a prompt."""
        if not kwargs.get("do_sample"):
            kwargs = {**kwargs, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        criteria = stop_sequences_criteria(self.tokenizer, stop, context.shape[1], context.shape[0])
        sequences: torch.Tensor = self.prompted.generate_with(
            choices,
            context,
            max_length=max_length,
            stopping_criteria=criteria,
            pad_token_id=self.tokenizer.pad_token_id,
            **kwargs,
        )
        return sequences

    def _prompts_id(self, context: str) -> Any:
        """What a context is continued under, as JSON."""
        return self.prompt_id(self._selections[context].index)

    def prompt_id(self, choice: int) -> str:
        """What a prompt is, whatever bank it stands in and wherever."""
        bank = self.prompted.bank
        return "none" if choice == -1 or bank is None else bank.prompts[choice].digest
