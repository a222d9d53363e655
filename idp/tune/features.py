"""What the tuning data is partitioned by: features of its examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idp.errors import TaskError, suggest
from idp.run.store import PrefixStore
from idp.select.features import mean_embeddings
from idp.select.states import context_states
from idp.tune.batches import batches_of
from idp.tune.examples import Example, reading
from idp.tune.losses import example_losses

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel
    from idp.tune.objective import Objective

__all__ = ["FEATURES", "OF_THE_OBJECTIVE", "OF_WHAT_BROKE", "Source", "check_features", "features_of"]

OF_WHAT_BROKE = frozenset({"damage", "loss-gap"})
"""Features that need the dense model."""

OF_THE_OBJECTIVE = frozenset({"gradient"})
"""Features that are computed from the objective, so that a teacher has to know all examples."""

_DIRECTIONS = 64  # onto which gradients are projected
_ROWS = 32


@dataclass(frozen=True, eq=False)
class Source:
    """What features are computed from.

    Attributes:
        objective: the loss, and the compressed model.
        static: the prompt for everything, `(n, d)`, at which gradients are taken.
        teacher: the dense model, for features of what compression broke.
        seed: of random projections.
    """

    objective: Objective
    static: Tensor
    teacher: LanguageModel | None
    seed: int

    @property
    def dense(self) -> LanguageModel:
        """The dense model, where `check_features` has seen that there is one."""
        assert self.teacher is not None  # noqa: S101
        return self.teacher


def features_of(source: Source, examples: Sequence[Example], kinds: Sequence[str]) -> Tensor:
    """Compute features of examples.

    Args:
        source: the models and the static prompt.
        examples: `N` examples.
        kinds: names of `FEATURES`, put side by side.

    Returns:
        `(N, f)` in fp64 on the CPU.

    Raises:
        TaskError: no kinds, an unknown one, or one that needs the dense model where there is none.

    Example:
        >>> features_of(source, examples, ["state"]).shape  # doctest: +SKIP
        torch.Size([6000, 160])
    """
    check_features(kinds, source.objective.lm, source.teacher)
    return torch.cat([FEATURES[kind](source, examples).double() for kind in kinds], dim=1)


def check_features(kinds: Sequence[str], lm: LanguageModel, teacher: LanguageModel | None) -> None:
    """Check that features are known and can be computed.

    Raises:
        TaskError: as for `features_of`.
    """
    for kind in kinds:
        if kind not in FEATURES:
            raise TaskError(f"unknown features {kind!r}. {suggest(kind, FEATURES)}")
    if not kinds:
        raise TaskError(f"name the features that parts are found by. {suggest('', FEATURES)}")
    if teacher is None and (lacking := sorted(OF_WHAT_BROKE.intersection(kinds))):
        raise TaskError(f"the features {lacking[0]!r} need the dense model; name it (--teacher).")
    if "damage" in kinds and teacher is not None and teacher.hidden_size != lm.hidden_size:
        raise TaskError(f"{teacher.name} and {lm.name} differ in width, so their states cannot be compared.")


def _embedding(source: Source, examples: Sequence[Example]) -> Tensor:
    return mean_embeddings(source.objective.lm, _readings(source, examples))


def _state(source: Source, examples: Sequence[Example]) -> Tensor:
    return context_states(source.objective.lm, _readings(source, examples))


def _damage(source: Source, examples: Sequence[Example]) -> Tensor:
    dense, compressed = source.dense, source.objective.lm
    readings = _readings(source, examples)
    return context_states(dense, readings) - context_states(compressed, readings)


def _loss_gap(source: Source, examples: Sequence[Example]) -> Tensor:
    models = (source.dense, source.objective.lm)
    dense, compressed = (example_losses(PrefixStore(lm, None), examples) for lm in models)  # (N, 1) each
    return compressed - dense


def _gradient(source: Source, examples: Sequence[Example]) -> Tensor:
    """Directions of the gradients at the static prompt, `(N, 64)`: which way each example would move it."""
    generator = torch.Generator().manual_seed(source.seed)
    directions = torch.randn(source.static.numel(), _DIRECTIONS, generator=generator) / _DIRECTIONS**0.5
    projected = torch.empty(len(examples), _DIRECTIONS)
    views = source.objective.views(examples)
    for rows in batches_of(views, _ROWS):
        leaves = [source.static.clone().to(source.objective.lm.device).requires_grad_() for _ in rows]
        step = source.objective.behind(leaves)
        torch.autograd.backward(step.losses([views[row] for row in rows], range(len(rows))).sum())
        step.backward()
        gradients = torch.stack([torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves])
        flat = gradients.flatten(1).cpu()  # (B, n d)
        projected[rows] = (flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-12)) @ directions
    return projected


def _readings(source: Source, examples: Sequence[Example]) -> list[tuple[int, ...]]:
    return [reading(source.objective.lm, example) for example in examples]


FEATURES: dict[str, Callable[[Source, Sequence[Example]], Tensor]] = {
    "damage": _damage,
    "embedding": _embedding,
    "gradient": _gradient,
    "loss-gap": _loss_gap,
    "state": _state,
}
"""By topic: `embedding`, the mean input embedding of a context; `state`, what the compressed model has understood of it
half-way up. By what compression broke: `damage`, the dense model's state less the compressed one's; `loss-gap`, by how
much more the compressed model errs on the example; `gradient`, the direction in which the example would move the static
prompt (arXiv 2402.04333 selects data by such projections).
"""
