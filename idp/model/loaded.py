"""A language model and its tokenizer, ready to be given prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from idp.bank.prompt import Prompt
from idp.bank.vectors import require_no_vectors
from idp.errors import BankError, ModelError
from idp.model.fingerprint import embedding_width, fingerprint
from idp.model.support import base_model, require_decoder, why_no_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from idp.bank.fingerprint import Fingerprint

__all__ = ["LanguageModel"]

T = TypeVar("T")

_LENGTH_FIELDS = ("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len")
_LENGTH_WHEN_UNKNOWN = 2048  # what lm-eval assumes too
_NO_LIMIT = 10**9  # tokenizers without a limit say 10^30


@dataclass
class LanguageModel:
    """A causal language model as it is, with its tokenizer: nothing in it is patched.

    The model is put into evaluation mode and its weights stop asking for gradients (gradients still reach
    `inputs_embeds`, which is how prompts are tuned).

    Attributes:
        model: any causal language model of `transformers`. Of a PEFT model it is the model inside, adapters included.
        tokenizer: its tokenizer.
        name: what to call it in messages and results.
        traits: what was found out about the model (see `find_out`).

    Raises:
        ModelError: the model has no input embeddings, so no prompt can be put in front of a text; it is an
            encoder-decoder; or PEFT gave it a prompt already.

    Example:
        >>> lm = LanguageModel(model, tokenizer, "my-model")  # doctest: +SKIP
        >>> lm.embed_prompt(Prompt("polite", text="Answer politely.")).shape  # doctest: +SKIP
        torch.Size([4, 2048])
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    traits: dict[tuple[str, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check that prompts can be embedded, and freeze the model."""
        self.model = base_model(self.model, self.name)
        require_decoder(self.model, self.name)
        try:
            embeddings = self.model.get_input_embeddings()
        except (AttributeError, NotImplementedError) as error:
            raise ModelError(f"{self.name} has no input embeddings: is it a causal language model?") from error
        if embeddings is None:
            raise ModelError(f"{self.name} has no input embeddings: is it a causal language model?")
        self.model.eval()
        self.model.requires_grad_(False)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What identifies the model; computed once, so do not change the weights afterwards."""
        return fingerprint(self.model, self.tokenizer)

    def find_out(self, trait: str, find: Callable[[], T]) -> T:
        """Return what is known of the model, found now if nothing is known yet.

        What a user may change about a model (its attention, dtype or device) makes it another one here.

        Args:
            trait: what it is called.
            find: finds it out.
        """
        key = (trait, str(self.model.config._attn_implementation), str(self.dtype), str(self.device))
        if key not in self.traits:
            self.traits[key] = find()
        found: T = self.traits[key]
        return found

    @property
    def device(self) -> torch.device:
        """The device inputs have to be on."""
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the activations."""
        kind: torch.dtype = self.model.dtype
        return kind

    @cached_property
    def hidden_size(self) -> int:
        """Width `d` of an input embedding."""
        return embedding_width(self.model)

    @cached_property
    def vocab_size(self) -> int:
        """Number of input embeddings, padding of the vocabulary included: token ids lie below it."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @cached_property
    def max_length(self) -> int:
        """Context length in tokens: prompt, input and what is generated have to fit into it together."""
        config = self.model.config.get_text_config()
        for name in _LENGTH_FIELDS:
            length = getattr(config, name, None)
            if isinstance(length, int) and length > 0:
                return length
        declared = self.tokenizer.model_max_length
        return int(declared) if declared < _NO_LIMIT else _LENGTH_WHEN_UNKNOWN

    @cached_property
    def states_length(self) -> bool:
        """Whether the model says how long its context is; one that counts no positions may read on for ever."""
        config = self.model.config.get_text_config()
        return any(isinstance(getattr(config, name, None), int) for name in _LENGTH_FIELDS)

    @property
    def bos_token_id(self) -> int | None:
        """The id of the token that begins a text, or None when the tokenizer has none."""
        return _as_id(self.tokenizer.bos_token_id)

    @property
    def eos_token_id(self) -> int | None:
        """The id of the token that ends a text, or None when the tokenizer has none."""
        return _as_id(self.tokenizer.eos_token_id)

    @property
    def pad_token_id(self) -> int:
        """The id to fill masked positions with: padding, else end, else 0 (it is never attended to)."""
        for token in (_as_id(self.tokenizer.pad_token_id), self.eos_token_id):
            if token is not None:
                return token
        return 0

    @property
    def prefix_token_id(self) -> int:
        """The id that stands for an empty context: begin, else end of text.

        Raises:
            ModelError: the tokenizer has neither.
        """
        for token in (self.bos_token_id, self.eos_token_id):
            if token is not None:
                return token
        raise ModelError(f"the tokenizer of {self.name} has neither a bos nor an eos token; set tokenizer.bos_token.")

    @cached_property
    def _why_no_prompts(self) -> str | None:
        return why_no_prompts(self.model, self.name)

    def require_prompts(self) -> None:
        """Refuse a model that prompts cannot be put in front of.

        Raises:
            ModelError: it keeps a recurrent state, or looks tokens up in every layer.
        """
        if self._why_no_prompts is not None:
            raise ModelError(self._why_no_prompts)

    def embed(self, ids: Tensor) -> Tensor:
        """Embed token ids by calling the model's own input embeddings, as its forward pass does.

        Args:
            ids: token ids, `(...)`, of an integer type, on any device.

        Returns:
            Embeddings `(..., d)` on the model's device.
        """
        embedded: Tensor = self.model.get_input_embeddings()(ids.to(self.device))
        return embedded

    def embed_prompt(self, prompt: Prompt) -> Tensor:
        """Return a prompt as the embeddings the model reads.

        Text is tokenized without special tokens, so the prompt is only what it says.

        Args:
            prompt: a text or soft prompt.

        Returns:
            Embeddings `(n, d)` on the model's device, in its dtype.

        Raises:
            BankError: the prompt's width is not the model's, its text has no tokens, or it is a vector.
            ModelError: prompts cannot be put in front of this model's inputs.
        """
        self.require_prompts()
        require_no_vectors([prompt])
        embedding = prompt.embedding  # (n, d)
        if embedding is None:
            return self.embed(self._prompt_ids(prompt))  # (n, d)
        if embedding.shape[1] != self.hidden_size:
            raise BankError(
                f"prompt {prompt.name!r} is {embedding.shape[1]} wide, but {self.name} reads embeddings of width "
                f"{self.hidden_size}: the prompt was tuned for another model."
            )
        return embedding.to(device=self.device, dtype=self.dtype)  # (n, d)

    def _prompt_ids(self, prompt: Prompt) -> Tensor:
        ids = self.tokenizer(prompt.text or "", add_special_tokens=False)["input_ids"]
        if not ids:
            raise BankError(f"the text of prompt {prompt.name!r} gives no tokens with the tokenizer of {self.name}.")
        return torch.tensor(ids, dtype=torch.long)  # (n,)


def _as_id(token: object) -> int | None:
    """Return a special token's id as a plain int, or None where there is none."""
    return token if isinstance(token, int) else None
