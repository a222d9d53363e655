"""The settings of a call of `generate` that matter for prompts, wherever they were given."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["GenerationOptions"]

_DEFAULT_NEW_TOKENS = 20  # transformers' own, where nobody says how many


class GenerationOptions:
    """Reads settings in the order transformers does: arguments, then the given config, then the model's.

    Args:
        model: whose `generation_config` holds the defaults.
        config: the `GenerationConfig` given to the call, or None.
        kwargs: the arguments given to the call.
    """

    def __init__(self, model: PreTrainedModel, config: Any, kwargs: Mapping[str, Any]) -> None:
        """Remember where settings may come from."""
        self.config = config
        self._kwargs = kwargs
        self._sources = [source for source in (config, model.generation_config) if source is not None]

    def get(self, name: str) -> Any:
        """Return the setting, or None where nobody gave it."""
        values = [self._kwargs.get(name), *(getattr(source, name, None) for source in self._sources)]
        return next((value for value in values if value is not None), None)

    @property
    def pad_token_id(self) -> int | None:
        """The padding token."""
        token: int | None = self.get("pad_token_id")
        return token

    @property
    def eos_token_ids(self) -> list[int]:
        """All end tokens."""
        tokens = self.get("eos_token_id")
        if isinstance(tokens, Tensor):
            tokens = tokens.flatten().tolist()
        return [] if tokens is None else list(tokens) if isinstance(tokens, list | tuple) else [tokens]

    @property
    def copies(self) -> int:
        """Rows the model runs for each input: beams or samples."""
        return max(self.get("num_beams") or 1, self.get("num_return_sequences") or 1)

    @property
    def cache_kind(self) -> Literal["dynamic", "static", "other"]:
        """The kind of cache the call wants, `other` where it cannot be one that was filled beforehand."""
        cache = self.get("cache_implementation")
        if self.get("use_cache") is False or self.get("prefill_chunk_size") is not None:
            return "other"
        if cache in (None, "hybrid"):  # hybrid is what old checkpoints say, and means nothing any more
            return "dynamic"
        if cache not in ("dynamic", "static") or (self._model_says(cache) and self.config is not None):
            return "other"  # what a model's own settings say cannot be taken back in a config, whose None says nothing
        return cast('Literal["dynamic", "static"]', cache)

    def _model_says(self, cache: str) -> bool:
        return getattr(self._sources[-1], "cache_implementation", None) == cache

    @property
    def states_new_tokens(self) -> bool:
        """Whether the call itself says how many new tokens it wants."""
        given = (self._kwargs.get("max_new_tokens"), getattr(self.config, "max_new_tokens", None))
        return any(value is not None for value in given)

    def new_tokens(self, width: int) -> int:
        """Most tokens that may be generated behind inputs of `width` columns; at least 1."""
        if (new := self.get("max_new_tokens")) is not None:
            return max(1, int(new))
        length = self.get("max_length")
        return _DEFAULT_NEW_TOKENS if length is None else max(1, int(length) - width)

    def min_new_tokens(self, width: int) -> int:
        """Fewest tokens that have to be generated behind inputs of `width` columns."""
        if (new := self.get("min_new_tokens")) is not None:
            return int(new)
        return max(0, int(self.get("min_length") or 0) - width)

    def arguments(self, **changed: Any) -> dict[str, Any]:
        """Return the call's arguments with changed settings, on a copy of its config where it has one.

        transformers warns when a config comes together with settings as arguments.
        """
        if self.config is None:
            return {**self._kwargs, **changed}
        config = copy.deepcopy(self.config)
        for name, value in changed.items():
            setattr(config, name, value)
        rest = {name: value for name, value in self._kwargs.items() if name not in changed}
        return {**rest, "generation_config": config}
