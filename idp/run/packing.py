"""One row per question: the context, then all options packed behind it, none of which sees another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Layout", "Request", "causal_option_mask", "lay_out", "parts_of"]

ROW_TOKENS = 256
"""Most tokens that the options of one row have together, unless one alone has more."""


@dataclass(frozen=True)
class Request:
    """A question: what was read, and the continuations whose likelihood is wanted.

    Attributes:
        context: token ids the model has read; at least one (a bos or eos token stands for nothing).
        continuations: token ids of each option, without the context.
    """

    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]

    @property
    def packed_length(self) -> int:
        """Tokens of the row: the context and every option but its last token, which predicts nothing."""
        return len(self.context) + sum(max(len(option) - 1, 0) for option in self.continuations)

    @property
    def span(self) -> int:
        """Positions of the longest option's run: the context and that option but its last token."""
        return len(self.context) + max((len(option) - 1 for option in self.continuations if option), default=0)


@dataclass(frozen=True, eq=False)
class Layout:
    """The rows of one batch, padded on the left, so that all predicting positions lie in the last `tail` columns.

    Attributes:
        input_ids: `(B, Q)`.
        segments: `(B, Q)`: -1 padding, 0 context, `i + 1` option `i`.
        positions: `(B, Q)`, counted from the first context token; 0 at padding.
        tail: number `K` of last columns in which all predicting positions lie.
        rows: `(P,)` row of each predicting position: of every row the end of its context, then its options' tokens.
        columns: `(P,)` its column, counted within the last `K`.
        sources: `(N,)` for each token to be predicted, which of the `P` positions predicts it.
        targets: `(N,)` its id.
        owners: `(N,)` the option it belongs to, counted over the whole batch.
        num_options: options in the batch.
    """

    input_ids: Tensor
    segments: Tensor
    positions: Tensor
    tail: int
    rows: Tensor
    columns: Tensor
    sources: Tensor
    targets: Tensor
    owners: Tensor
    num_options: int


@dataclass
class _Lists:
    """A layout while it grows row by row."""

    input_ids: list[list[int]] = field(default_factory=list)
    segments: list[list[int]] = field(default_factory=list)
    positions: list[list[int]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    num_options: int = 0


def lay_out(requests: Sequence[Request], pad_token_id: int) -> Layout:
    """Lay out the rows of one batch.

    The first token of every option is predicted by the last context token; each further one by the option's own
    token before it. Options restart their positions behind the context.

    Args:
        requests: the questions, none with an empty context.
        pad_token_id: fills the left of shorter rows.

    Returns:
        The layout, on the CPU.
    """
    width = max(request.packed_length for request in requests)
    tail = max(request.packed_length - len(request.context) for request in requests) + 1
    lists = _Lists()
    for request in requests:
        _add_row(lists, request, width - request.packed_length, pad_token_id)
        _add_predictions(lists, request, tail)
    tensors = {
        name: torch.tensor(value, dtype=torch.long) for name, value in vars(lists).items() if name != "num_options"
    }
    return Layout(tail=tail, num_options=lists.num_options, **tensors)


def _add_row(lists: _Lists, request: Request, gap: int, pad_token_id: int) -> None:
    start = len(request.context)
    ids, segments, positions = [pad_token_id] * gap, [-1] * gap, [0] * gap
    ids.extend(request.context)
    segments.extend([0] * start)
    positions.extend(range(start))
    for number, option in enumerate(request.continuations, start=1):
        inner = option[:-1]  # nothing is asked about what follows an option
        ids.extend(inner)
        segments.extend([number] * len(inner))
        positions.extend(range(start, start + len(inner)))
    lists.input_ids.append(ids)
    lists.segments.append(segments)
    lists.positions.append(positions)


def _add_predictions(lists: _Lists, request: Request, tail: int) -> None:
    row = len(lists.input_ids) - 1
    shared = len(lists.rows)  # the end of the context, which predicts the first token of every option
    behind = tail - (request.packed_length - len(request.context))  # first column behind the context
    lists.columns.extend(range(behind - 1, tail))
    lists.rows.extend([row] * (tail - behind + 1))
    following = shared + 1
    for owner, option in enumerate(request.continuations, start=lists.num_options):
        if option:
            lists.sources.append(shared)
            lists.sources.extend(range(following, following + len(option) - 1))
            following += len(option) - 1
        lists.targets.extend(option)
        lists.owners.extend([owner] * len(option))
    lists.num_options += len(request.continuations)


def parts_of(options: Iterable[tuple[int, ...]]) -> list[tuple[tuple[int, ...], ...]]:
    """Cut the continuations of one context into rows.

    The options of a question share a row. Whole texts share a context too, the prefix token, but in one row they
    would only be long: the mask grows with the square.

    Example:
        >>> [len(part) for part in parts_of([(5,) * 100] * 5)]
        [2, 2, 1]
    """
    parts: list[list[tuple[int, ...]]] = []
    room = 0
    for option in options:
        if not parts or len(option) > room:
            parts.append([])
            room = ROW_TOKENS
        parts[-1].append(option)
        room -= len(option)
    return [tuple(part) for part in parts]


def causal_option_mask(segments: Tensor, prefix_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Build the additive mask of a packed batch: 0 where a query may look, the lowest number where it may not.

    A query sees the prompt, and of what came before it the context and its own option. Padding sees padding, so
    that no query is left without a key (whose softmax would be NaN in some attention implementations).

    Args:
        segments: `(B, Q)` of `Layout`.
        prefix_mask: `(B, N0)`, 1 at prompt tokens.
        dtype: of the model.

    Returns:
        `(B, 1, Q, N0 + Q)`.
    """
    batch, width = segments.shape
    keys, queries = segments[:, None, :], segments[:, :, None]
    causal = torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
    seen = ((keys == 0) | (keys == queries)) & causal  # (B, Q, Q)
    prompt = prefix_mask.bool()[:, None, :].expand(batch, width, -1)  # (B, Q, N0)
    hidden = torch.cat([prompt, seen], dim=-1).logical_not_()
    mask = torch.zeros(hidden.shape, dtype=dtype, device=segments.device)
    return mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None]
