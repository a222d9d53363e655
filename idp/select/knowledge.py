"""What a router may know of an input before a prompt is chosen, by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from idp.errors import IdpError, ModelError, SelectorError
from idp.model.loaded import LanguageModel
from idp.model.view import num_layers, shallow
from idp.select.features import mean_embeddings
from idp.select.sentences import SENTENCE_MODEL, SentenceEncoder, texts_of
from idp.select.states import shallow_states

__all__ = ["STATE_TOKENS", "Knowledge", "check_features", "end_of"]

STATE_TOKENS = 128
"""Most tokens that a hidden state is computed of."""

_NAME = re.compile(r"embedding|sentence|state(?P<layer>[1-9][0-9]*)?")


def check_features(spec: str) -> None:
    """Check names of features joined by `+`.

    Raises:
        SelectorError: one of them is unknown.
    """
    if wrong := next((name for name in spec.split("+") if not _NAME.fullmatch(name)), None):
        raise SelectorError(
            f"there are no features {wrong!r}: take embedding, sentence, state (half-way up) or state1, state2 ... "
            "(behind that layer), several joined by '+'."
        )


class Knowledge:
    """Features of inputs for one model.

    - `embedding`: the mean input embedding, free;
    - `state`: the hidden state of the last token half-way up, the model run without a prompt; `state3`: behind layer 3;
      of a long input its last 128 tokens are run;
    - `sentence`: what a sentence-transformers model makes of the text.

    Args:
        spec: names joined by `+`.
        lm: the model.
        model: the sentence-transformers model.

    Raises:
        SelectorError: an unknown name, or a layer that the model does not have.
        MissingExtraError: `sentence` without sentence-transformers.
        ModelError: no such sentence model.

    Example:
        >>> Knowledge("embedding+state2", lm).of([[1, 5, 6], [1, 7]]).shape  # doctest: +SKIP
        torch.Size([2, 320])
    """

    def __init__(self, spec: str, lm: LanguageModel, model: str = SENTENCE_MODEL) -> None:
        """Build the views that are needed."""
        check_features(spec)
        self._names, self._lm = spec.split("+"), lm
        self._layers = {name: _layer(lm, name) for name in self._names if name.startswith("state")}
        self._decoders: dict[str, nn.Module] = {name: _view(lm, layer) for name, layer in self._layers.items()}
        self._encoder = SentenceEncoder.load(model) if "sentence" in self._names else None

    @property
    def forwards(self) -> float:
        """Passes of the model for one input: the layers behind which states are taken, each view run by itself."""
        return sum(self._layers.values()) / num_layers(self._lm)

    @property
    def width(self) -> int:
        """The number `f` of features."""
        widths = {"sentence": 0 if self._encoder is None else self._encoder.dimension}
        return sum(widths.get(name, self._lm.hidden_size) for name in self._names)

    @property
    def fingerprint(self) -> str | None:
        """Of the sentence model, where one is used."""
        return None if self._encoder is None else self._encoder.fingerprint

    def of(self, inputs: Sequence[Sequence[int]]) -> Tensor:
        """Features of inputs, `(N, f)` in fp64 on the CPU; NaN for what an empty input has none of."""
        return torch.cat([self._of(name, inputs) for name in self._names], dim=1)

    def _of(self, name: str, inputs: Sequence[Sequence[int]]) -> Tensor:
        if name == "embedding":
            return mean_embeddings(self._lm, inputs)
        if self._encoder is not None and name == "sentence":
            return self._encoder.encode(texts_of(self._lm, inputs))
        found = torch.full((len(inputs), self._lm.hidden_size), torch.nan, dtype=torch.float64)
        rows = [row for row, ids in enumerate(inputs) if len(ids)]
        ends = [end_of(inputs[row], self._lm.bos_token_id) for row in rows]
        found[rows] = self._states(name, ends)
        return found

    def _states(self, name: str, ends: list[Sequence[int]]) -> Tensor:
        try:
            return shallow_states(self._lm, self._decoders[name], ends)
        except (IdpError, IndexError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a foreign architecture may fail in any way
            raise SelectorError(
                f"the first layers of {self._lm.name} cannot be run by themselves, so it has no states to choose by: "
                f"{error}. Use selector 'router', which takes the mean input embedding."
            ) from error


def end_of(ids: Sequence[int], bos: int | None) -> Sequence[int]:
    """What a state is taken of: the last `STATE_TOKENS` of a long input, begun as texts are.

    So choosing costs a long input no more than a short one.

    Example:
        >>> len(end_of([1, *range(5, 1000)], bos=1)), end_of([1, *range(5, 1000)], bos=1)[:2]
        (128, [1, 873])
    """
    if len(ids) <= STATE_TOKENS:
        return ids
    return [bos, *ids[1 - STATE_TOKENS :]] if ids[0] == bos else ids[-STATE_TOKENS:]


def _layer(lm: LanguageModel, name: str) -> int:
    found = _NAME.fullmatch(name)
    written = found and found["layer"]
    return int(written) if written else max(1, num_layers(lm) // 2)


def _view(lm: LanguageModel, layer: int) -> nn.Module:
    try:
        return shallow(lm, layer)
    except ModelError as error:
        raise SelectorError(f"states cannot be taken as features: {error}") from error
