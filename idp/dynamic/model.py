"""A drop-in for a model's `generate` that gives every input of a batch its own prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import StaticCache

from idp.dynamic.conversation import Conversation
from idp.errors import ModelError, PromptTooLongError, SelectorError, TaskError
from idp.run.forward import attention_window
from idp.run.guard import guarded
from idp.run.inputs import Inputs, on_device, pad_left, read_inputs
from idp.run.options import GenerationOptions
from idp.run.packing import Request
from idp.run.prefix import assemble
from idp.run.score import Score, score, score_prompts
from idp.run.store import PrefixStore
from idp.run.texts import Message, Text, encode_chat, encode_question
from idp.run.uncached import prompted_embeds
from idp.run.ways import bears_gaps
from idp.select.base import Selection

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from idp.bank.bank import PromptBank
    from idp.model.loaded import LanguageModel
    from idp.select.base import Selector

__all__ = ["DynamicPromptModel"]

_UNUSABLE = {
    "inputs_embeds": "the selector reads token ids; pass input_ids",
    "past_key_values": "the prompt takes the place of a cache; pass the whole text as input_ids",
    "custom_generate": "it replaces the code that reads the prompt",
}
_WITHOUT_PROMPT_ONLY = {
    "assistant_model": "assisted generation",
    "prompt_lookup_num_tokens": "prompt lookup",
    "position_ids": "positions that do not follow from attention_mask",
}


class DynamicPromptModel:
    """A model, its tokenizer, a bank of prompts, and a selector that picks one of them (or none) for each input.

    `generate` takes what `generate` of transformers takes. The prompt's keys and values are put into the cache before
    the first token is read, so the prompt costs no prefill, takes no room in `input_ids`, and rows of one batch may
    have different prompts. The model is not patched.

    Args:
        lm: the model and its tokenizer.
        bank: the prompts; None when there are none to pick from.
        selector: fitted on that bank and model; without a bank, `none`.
        store: of that model and bank, where its budget or folder matters.

    Attributes:
        lm: the model and its tokenizer.
        bank: the prompts.
        selector: what picks.
        store: the compiled prompts.
        last_selections: what was picked for each row of the last call of `generate`.

    Example:
        >>> prompted = DynamicPromptModel(lm, bank, selector)  # doctest: +SKIP
        >>> prompted.generate_text("The capital of France is", max_new_tokens=2)  # doctest: +SKIP
        [' Paris.']
        >>> prompted.last_selections[0].index  # doctest: +SKIP
        3
    """

    def __init__(
        self, lm: LanguageModel, bank: PromptBank | None, selector: Selector, *, store: PrefixStore | None = None
    ) -> None:
        """Compile no prompt yet."""
        self.lm = lm
        self.bank = bank
        self.selector = selector
        self.store = PrefixStore(lm, bank) if store is None else store
        self.last_selections: list[Selection] = []

    @property
    def model(self) -> PreTrainedModel:
        """The model, as it was given."""
        return self.lm.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self.lm.tokenizer

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.lm.device

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, generation_config: Any = None, **kwargs: Any) -> Any:
        """Continue every input under the prompt the selector picks for it.

        Args:
            inputs: token ids `(B, T)`, padded on either side; also accepted as `input_ids`. None begins with bos.
            generation_config: as for transformers.
            kwargs: as for transformers: `attention_mask`, `max_new_tokens`, `do_sample`, `num_beams`, `streamer` ...

        Returns:
            What transformers returns: `(B * num_return_sequences, T + new)` token ids, the given ones first and
            without the prompts, or its output object with `return_dict_in_generate`. A row gets the tokens it would
            get alone; rows without a prompt get those of the bare model.

        Raises:
            ModelError: inputs or arguments that prompts cannot be combined with.
            PromptTooLongError: prompt, input and new tokens do not fit into the model's context.
        """
        inputs = kwargs.pop("input_ids", None) if inputs is None else inputs
        batch, options = self._read(inputs, generation_config, kwargs)
        selections = self.selector.select_batch(batch.rows())
        output = self._run([selection.index for selection in selections], batch, options)
        self.last_selections = selections
        return output

    def generate_with(
        self, choices: Sequence[int], inputs: Tensor, generation_config: Any = None, **kwargs: Any
    ) -> Any:
        """Continue every input under a given prompt instead of the selector's choice.

        Args:
            choices: the prompt of each row, -1 for none.
            inputs: token ids `(B, T)`, padded on either side.
            generation_config: as for transformers.
            kwargs: as for transformers.

        Returns:
            As `generate`.

        Raises:
            SelectorError: not one choice a row, or a choice that is not in the bank.
            ModelError: as for `generate`.
            PromptTooLongError: as for `generate`.
        """
        return self._run(choices, *self._read(inputs, generation_config, kwargs))

    def generate_text(self, texts: str | Sequence[str], **kwargs: Any) -> list[str]:
        """Continue texts.

        Args:
            texts: one or several.
            kwargs: as for `generate`.

        Returns:
            The new text only, `num_return_sequences` for each text.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        return self._answers([self.tokenizer(t)["input_ids"] or [self.lm.prefix_token_id] for t in texts], kwargs)

    def generate_chat(self, conversations: Sequence[Sequence[Message]], **kwargs: Any) -> list[str]:
        """Answer the last turn of each conversation, written with the tokenizer's chat template.

        Args:
            conversations: each a list of messages, `{"role": ..., "content": ...}`.
            kwargs: as for `generate`.

        Returns:
            The answers only, `num_return_sequences` for each conversation.

        Raises:
            ModelError: the tokenizer has no chat template, or the template does not take the messages.
            TaskError: a conversation is not a list of messages.
        """
        if any(isinstance(messages, Mapping | str) for messages in conversations):
            raise TaskError("generate_chat takes a list of conversations, each a list of messages.")
        return self._answers([encode_chat(self.lm, messages) for messages in conversations], kwargs)

    def conversation(self, system: str | None = None, *, choose_anew: bool = False) -> Conversation:
        """Begin a conversation, which keeps the prompt chosen at its first turn; see `Conversation`."""
        return Conversation(self, system, choose_anew=choose_anew)

    def score(
        self, contexts: Sequence[Text], continuations: Sequence[Sequence[Text]], *, batch_size: int | None = None
    ) -> list[list[Score]]:
        """Measure how likely continuations are, each question under the prompt the selector picks for its context.

        Args:
            contexts: `N` texts, or token ids; an empty one begins with bos.
            continuations: for each context its options, with the space that separates them from it.
            batch_size: rows run at once; None finds a size that fits.

        Returns:
            For each question the scores of its options, in their order; `last_selections` says what was picked.

        Raises:
            TaskError: not one list of options a context.
            PromptTooLongError: a question does not fit into the model's context together with its prompt.
            ModelError: the model computed NaN, or a single row does not fit into memory.

        Example:
            >>> scores = model.score(["The capital of France is"], [[" Paris", " Rome"]])  # doctest: +SKIP
            >>> max(scores[0], key=lambda score: score.loglikelihood) is scores[0][0]  # doctest: +SKIP
            True
        """
        requests = self._questions(contexts, continuations)
        selections = self.selector.select_among(
            [request.context for request in requests], [request.continuations for request in requests]
        )
        choices = [selection.index for selection in selections]
        scored = score(self.store, requests, choices, batch_size=batch_size)
        self.last_selections = selections
        return [list(row.scores) for row in scored]

    def score_prompts(
        self, contexts: Sequence[Text], continuations: Sequence[Sequence[Text]], *, batch_size: int | None = None
    ) -> list[Tensor]:
        """Measure how likely continuations are under every prompt of the bank, and under none.

        Args:
            contexts: as for `score`.
            continuations: as for `score`.
            batch_size: as for `score`.

        Returns:
            For each question the log-likelihoods `(m + 1, options)` in fp64, the last row without a prompt.

        Raises:
            IdpError: as for `score`.
        """
        table = score_prompts(self.store, self._questions(contexts, continuations), batch_size=batch_size)
        rows = [[[option.loglikelihood for option in arm.scores] for arm in arms] for arms in table]
        return [torch.tensor(row, dtype=torch.float64) for row in rows]

    def _questions(self, contexts: Sequence[Text], continuations: Sequence[Sequence[Text]]) -> list[Request]:
        if any(isinstance(options, str) for options in (continuations, *continuations)):
            raise TaskError("continuations are a list of options for each context: [[' yes', ' no']], not a text.")
        if isinstance(contexts, str) or len(contexts) != len(continuations):
            raise TaskError(
                f"{len(contexts)} contexts were given with {len(continuations)} lists of continuations; give one each."
            )
        return [encode_question(self.lm, *pair) for pair in zip(contexts, continuations, strict=True)]

    def _answers(
        self, rows: list[list[int]], kwargs: dict[str, Any], selections: list[Selection] | None = None
    ) -> list[str]:
        """Continue rows of token ids under the prompts selected, or now to be selected; returns the new text only."""
        if not rows:
            return []
        ids, mask = pad_left(rows, self.lm.pad_token_id)
        given = {**kwargs, "attention_mask": mask.to(self.device)}
        if kwargs.get("generation_config") is None:
            given.setdefault("pad_token_id", self.lm.pad_token_id)
        if selections is None:
            output = self.generate(ids.to(self.device), **given)
        else:
            output = self.generate_with([selection.index for selection in selections], ids.to(self.device), **given)
            self.last_selections = selections
        sequences: Tensor = output if isinstance(output, Tensor) else output.sequences
        return list(self.tokenizer.batch_decode(sequences[:, ids.shape[1] :], skip_special_tokens=True))

    def _read(self, inputs: Any, config: Any, kwargs: dict[str, Any]) -> tuple[Inputs, GenerationOptions]:
        for name, reason in _UNUSABLE.items():
            if kwargs.get(name) is not None:
                raise ModelError(f"generate cannot take {name} together with prompts: {reason}.")
        options = GenerationOptions(self.model, config, kwargs)
        if inputs is None:
            inputs = torch.tensor([[self.lm.prefix_token_id]], device=self.device)
        batch = read_inputs(
            on_device(inputs, self.device),
            kwargs.get("attention_mask"),
            options.pad_token_id,
            options.eos_token_ids,
            vocab_size=self.lm.vocab_size,
        )
        return batch, options

    @torch.no_grad()
    def _run(self, choices: Sequence[int], batch: Inputs, options: GenerationOptions) -> Any:
        if len(choices) != len(batch.ids):
            raise SelectorError(f"{len(choices)} choices of a prompt for {len(batch.ids)} inputs; give one each.")
        new = self._new_tokens(choices, batch, options)
        if all(choice == -1 for choice in choices):
            return _with_given_ids(self._bare(batch, options), batch)
        for name, what in _WITHOUT_PROMPT_ONLY.items():
            if options.get(name) is not None:
                raise ModelError(f"{what} ({name}) cannot be combined with prompts; leave it out.")
        run = self._cached if self._caches(choices, batch, options, new) else self._uncached
        return _with_given_ids(run(choices, batch, options, new), batch)

    def _new_tokens(self, choices: Sequence[int], batch: Inputs, options: GenerationOptions) -> int:
        """How many tokens may be generated: what was asked for, or what the context has room for by default."""
        wanted, limit = options.new_tokens(batch.ids.shape[1]), self.lm.max_length
        needed = wanted if options.states_new_tokens else 1
        room = wanted
        for row, (choice, given) in enumerate(zip(choices, batch.mask.sum(-1).tolist(), strict=True)):
            if choice == -1 and not self.lm.states_length:
                continue  # as far as anybody knows, the bare model reads on
            length = self.store.length(choice)
            if length + given + needed > limit:
                raise PromptTooLongError(
                    f"row {row} does not fit: {length} tokens of {self.store.name(choice)}, {given} of input and "
                    f"{needed} new ones make {length + given + needed}, but the context of {self.lm.name} holds "
                    f"{limit}. Shorten the input, lower max_new_tokens or choose a shorter prompt."
                )
            room = min(room, limit - length - given) if choice != -1 else room
        return room

    def _bare(self, batch: Inputs, options: GenerationOptions) -> Any:
        """Let the model generate as if we were not there."""
        arguments = options.arguments()
        if batch.moved or arguments.get("attention_mask") is not None:
            arguments["attention_mask"] = batch.mask
        return self.model.generate(batch.ids, **guarded(self.lm, arguments, options.copies))

    def _caches(self, choices: Sequence[int], batch: Inputs, options: GenerationOptions, new: int) -> bool:
        """Whether cached prompts are exact here: not with caches of other kinds, nor over a sliding window.

        Shorter rows have padding between prompt and input, which a window counted in columns would count too, and so do
        the positions of some models.
        """
        window = attention_window(self.lm)
        fits = window is None or self._width(choices, batch, new) <= window
        padded = (batch.mask == 0).any(-1).tolist()
        has_gaps = any(choice != -1 and row for choice, row in zip(choices, padded, strict=True))
        return options.cache_kind != "other" and fits and (not has_gaps or bears_gaps(self.lm))

    def _width(self, choices: Sequence[int], batch: Inputs, new: int) -> int:
        """Columns in all: the longest prompt, the inputs, and what is generated."""
        return max(self.store.length(choice) for choice in choices) + batch.ids.shape[1] + new

    def _cached(self, choices: Sequence[int], batch: Inputs, options: GenerationOptions, new: int) -> Any:
        """Generate behind cached keys and values."""
        lowered = {} if new == options.new_tokens(batch.ids.shape[1]) else {"max_new_tokens": new, "max_length": None}
        if options.get("cache_implementation") is not None:
            lowered |= {"cache_implementation": None, "max_cache_len": None}  # a cache is given, none has to be made
        empty = None
        if options.cache_kind == "static":
            room = max(self._width(choices, batch, new), options.get("max_cache_len") or 0)
            empty = StaticCache(config=self.model.config, max_cache_len=room)
        copies = options.copies  # transformers repeats inputs for beams and samples, but not a cache
        cache, mask = assemble(self.store.prefixes([choice for choice in choices for _ in range(copies)]), empty)
        arguments = options.arguments(**lowered)
        prefix_mask = mask[::copies].to(batch.mask.device)  # (B, N0)
        arguments["attention_mask"] = torch.cat([prefix_mask, batch.mask], dim=-1)  # (B, N0 + T)
        arguments["past_key_values"] = cache
        return self.model.generate(batch.ids, **guarded(self.lm, arguments, copies))

    def _uncached(self, choices: Sequence[int], batch: Inputs, options: GenerationOptions, new: int) -> Any:
        """Generate behind prompts that are read together with the input, as embeddings."""
        embeds, mask = prompted_embeds(self.store, choices, batch.rows())  # (B, S, d), (B, S)
        # transformers counts embeddings, prompt included, against lengths, where ids count without the prompt.
        shortest = options.min_new_tokens(batch.ids.shape[1])
        limits = {"max_length": None, "max_new_tokens": new, "min_length": 0, "min_new_tokens": shortest or None}
        arguments = {**options.arguments(**limits, prefill_chunk_size=None), "attention_mask": mask}
        return self.model.generate(batch.ids, inputs_embeds=embeds, **guarded(self.lm, arguments, options.copies))


def _with_given_ids(output: Any, batch: Inputs) -> Any:
    """Put the ids back as they were given where padding was moved."""
    if not batch.moved:
        return output
    sequences: Tensor = output if isinstance(output, Tensor) else output.sequences
    copies = sequences.shape[0] // batch.given.shape[0]
    given = batch.given.repeat_interleave(copies, dim=0).to(sequences.device)  # (B * copies, T)
    restored = torch.cat([given, sequences[:, given.shape[1] :]], dim=-1)
    if isinstance(output, Tensor):
        return restored
    output.sequences = restored
    return output
