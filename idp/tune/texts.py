"""Text prompts chosen from a pool by what they cost: a bank for a model that cannot be trained through."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch
from scipy.stats import false_discovery_control
from scipy.stats import t as student_t
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.errors import TaskError
from idp.select.calibration import Calibration
from idp.select.states import context_states
from idp.tune.examples import Example, reading
from idp.tune.losses import example_losses
from idp.tune.partition import clusters

if TYPE_CHECKING:
    from idp.run.store import PrefixStore

__all__ = ["Chosen", "choose_texts", "complementary", "helpful"]

_LOG = logging.getLogger(__name__)

_FEWEST = 20
"""Different inputs without which nothing can be said."""
_FEWEST_OF_A_PART = 10
_INPUTS_A_PART = 40
_MOST_PARTS = 20


@dataclass(frozen=True)
class Chosen:
    """One choice of `complementary`.

    Attributes:
        index: the prompt's position in the pool.
        drop: how much the held-out loss falls once every part may have this prompt too, on average over inputs.
        error: standard error of that.
        bound: how much the lowest loss of every held-out input falls: what perfect choices would save, and luck.
    """

    index: int
    drop: float
    error: float
    bound: float


def helpful(losses: Tensor, parts: Tensor | None = None, level: float = 0.05) -> list[int]:
    """Find the prompts that lower the loss of at least some inputs.

    A prompt is kept when its mean loss is significantly below that without a prompt over all inputs, or over those of
    at least one part: a prompt for one kind of input may do harm to the others. The test is the one-sided paired t-test
    over inputs; the rate of false discoveries over all prompts and parts is held by the method of Benjamini and
    Hochberg, which allows for the positive dependence that comes from comparing all with the same "no prompt". Parts
    of less than ten inputs are not tested.

    Args:
        losses: `(N, m + 1)`, the last column is "no prompt"; each input once, see `choose_texts`.
        parts: the part of each input, `(N,)`, from 0; None for one part.
        level: the rate of false discoveries.

    Returns:
        The kept prompts in their order; none where none helps.

    Raises:
        TaskError: losses that are no such table, parts that do not fit them, or a level outside (0, 1).

    Source: Benjamini and Hochberg 1995 (`scipy.stats.false_discovery_control`).

    Example:
        >>> table = torch.tensor([[0.1, 0.5, 0.3], [0.2, 0.6, 0.3], [0.1, 0.4, 0.2], [0.1, 0.5, 0.4]] * 3)
        >>> helpful(table)
        [0]
    """
    parts = _checked(losses, parts)
    if not 0 < level < 1:
        raise TaskError(f"{level} is no rate of false discoveries; give one between 0 and 1, such as 0.05.")
    gains = losses[:, -1:] - losses[:, :-1]  # (N, m)
    groups = [gains, *(gains[parts == part] for part in range(int(parts.max()) + 1))]
    values = torch.stack([_p_values(group) for group in groups if len(group) >= _FEWEST_OF_A_PART or group is gains])
    adjusted = torch.from_numpy(false_discovery_control(values.flatten().numpy())).view_as(values)  # (groups, m)
    kept: list[int] = (adjusted.min(dim=0).values <= level).nonzero()[:, 0].tolist()
    return kept


def complementary(
    losses: Tensor,
    parts: Tensor | None,
    held_out: Tensor,
    count: int,
    candidates: Sequence[int] | None = None,
) -> list[Chosen]:
    """Choose prompts that do well where the others do not, one after the other, for as long as that is no luck.

    "No prompt" is there from the start. Each part of the inputs has the prompt with the lowest mean loss over those of
    its inputs that are not held out; added is the prompt that lowers the mean over all of them most. It stays if it
    lowers the mean loss of the held-out inputs too, each under the prompt its part has been given, by more than the
    standard error of the paired difference; otherwise the choice is complete.

    The lowest loss of every single input would say nothing: it falls with every further column, on held-out inputs too
    and even if that column is noise, since it is picked by the very number it is judged by. What is picked for a part
    on some inputs can be judged on others. With one part there is one best prompt, and a second is never added.

    Args:
        losses: `(N, m + 1)`, the last column is "no prompt"; each input once.
        parts: the part of each input, `(N,)`, from 0, known without looking at losses; None for one part.
        held_out: `(N,)`, True for the inputs that only judge.
        count: most prompts chosen.
        candidates: the prompts that may be chosen; None for all.

    Returns:
        The choices in order; none where no prompt helps.

    Raises:
        TaskError: losses that are no such table, parts or held-out inputs that do not fit them, a count below 1 or a
            candidate that is not in the table.

    Example:
        >>> table = torch.tensor([[0.1, 0.9, 0.5], [0.9, 0.2, 0.5]]).repeat(10, 1)
        >>> parts, held_out = torch.arange(20) % 2, torch.arange(20) % 4 < 2
        >>> [choice.index for choice in complementary(table, parts, held_out, count=2)]
        [0, 1]
    """
    parts = _checked(losses, parts)
    _check_choice(losses, held_out, count)
    left = list(range(losses.shape[1] - 1)) if candidates is None else list(dict.fromkeys(candidates))
    if wrong := [index for index in left if not 0 <= index < losses.shape[1] - 1]:
        raise TaskError(f"prompt {wrong[0]} cannot be chosen: the losses are those of {losses.shape[1] - 1} prompts.")
    table = _Table(losses.double(), parts, held_out)
    arms, chosen = [losses.shape[1] - 1], list[Chosen]()
    while left and len(chosen) < count:
        best = min(left, key=lambda index: table.fitted([*arms, index]))  # of equal ones the first
        choice = table.judged(arms, best)
        if not choice.drop > choice.error:
            break
        chosen.append(choice)
        arms.append(best)
        left.remove(best)
    return chosen


def choose_texts(
    store: PrefixStore,
    examples: Sequence[Example],
    count: int = 8,
    *,
    level: float = 0.05,
    seed: int = 0,
    losses: Tensor | None = None,
    batch_size: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> PromptBank:
    """Measure a pool of prompts and make a bank of those that help and complement each other.

    Nothing is trained, so any model that can be run will do. The inputs are cut into parts of what the model
    understood of them (`idp.tune.partition`), one for every forty and at most twenty, and into two halves. On one half
    prompts that help nobody are dropped (`helpful`) and the others added one by one; the other half says when to stop
    (`complementary`). Questions with the same context count as one input, with the mean of their losses: so none is on
    both sides, and none counts twice in a test.

    Args:
        store: the model and the pool.
        examples: what to measure on; never anything that is evaluated on.
        count: most prompts of the bank.
        level: rate of false discoveries among the prompts that are said to help.
        seed: of the parts and halves.
        losses: what `example_losses` gave for this store and these examples; None measures them.
        batch_size: rows run at once; None finds a size.
        advance: called with the number of measured losses just added, `N (m + 1)` in all.

    Returns:
        The chosen prompts in the order in which they were added, each with its `drop`, `error` and `bound` (see
        `Chosen`) in its provenance.

    Raises:
        TaskError: no pool, less than twenty different inputs, losses that do not fit, or no prompt that helps.
        PromptTooLongError: a prompt and an example do not fit into the model's context.
        ModelError: the model computed NaN.

    Example:
        >>> bank = choose_texts(PrefixStore(lm, text_bank()), examples)  # doctest: +SKIP
        >>> [(prompt.name, prompt.provenance["drop"]) for prompt in bank]  # doctest: +SKIP
        [('domain-history', 0.031), ('repair-think-again', 0.012)]
    """
    if store.bank is None:
        raise TaskError("there is no pool of prompts to choose from; give a bank, such as idp.bank.text_bank().")
    firsts = _firsts(examples)
    if len(firsts) < _FEWEST:
        raise TaskError(f"{len(firsts)} different inputs are too few to choose prompts by; give at least {_FEWEST}.")
    if losses is None:
        losses = example_losses(store, examples, batch_size, advance)  # (N, m + 1)
    if losses.shape != (len(examples), len(store) + 1):
        raise TaskError(f"losses of shape {tuple(losses.shape)} are not ({len(examples)}, {len(store) + 1}).")
    losses = _means(losses, examples, firsts)  # (inputs, m + 1)
    parts = _parts_of(store, firsts, seed)  # (inputs,)
    held_out = Calibration([example.key for example in firsts], losses).folds(2, seed) == 1  # (inputs,)
    candidates = helpful(losses[~held_out], parts[~held_out], level)
    chosen = complementary(losses, parts, held_out, count, candidates)
    _LOG.info("%d of %d prompts help, %d are chosen", len(candidates), len(store), len(chosen))
    if not chosen:
        raise TaskError(
            f"none of the {len(store)} prompts lowers the loss on inputs it was not chosen by: do without a prompt, "
            "or give other prompts or more examples."
        )
    return _bank_of(store, chosen, {"pool": len(store), "inputs": len(firsts), "level": level, "seed": seed})


@dataclass(frozen=True, eq=False)
class _Table:
    """Losses, seen by part."""

    losses: Tensor  # (N, m + 1) fp64
    parts: Tensor  # (N,)
    held_out: Tensor  # (N,)

    def assigned(self, arms: Sequence[int]) -> Tensor:
        """The arm of each input: that of its part, by the inputs that are not held out; `(N,)`."""
        inside, parts = self.losses[~self.held_out][:, list(arms)], self.parts[~self.held_out]
        sums = inside.new_zeros(int(self.parts.max()) + 1, len(arms)).index_add(0, parts, inside)  # (parts, arms)
        sizes = torch.bincount(parts, minlength=len(sums))  # (parts,)
        means = torch.where(sizes[:, None] > 0, sums / sizes[:, None], inside.mean(dim=0))  # all inputs for a new part
        return torch.tensor(arms)[means.argmin(dim=1)][self.parts]  # of equal ones the first

    def costs(self, arms: Sequence[int]) -> Tensor:
        """The loss of each input under the arm of its part, `(N,)`."""
        return self.losses.gather(1, self.assigned(arms)[:, None])[:, 0]

    def fitted(self, arms: Sequence[int]) -> float:
        """Mean loss of the inputs that are not held out."""
        return float(self.costs(arms)[~self.held_out].mean())

    def judged(self, arms: Sequence[int], index: int) -> Chosen:
        """What one more prompt saves the held-out inputs."""
        gains = (self.costs(arms) - self.costs([*arms, index]))[self.held_out]  # (n,)
        outside = self.losses[self.held_out]
        lowest = outside[:, list(arms)].min(dim=1).values
        luck = (lowest - outside[:, index]).clamp_min(0).mean()
        return Chosen(index, float(gains.mean()), float(gains.std() / len(gains) ** 0.5), float(luck))


def _p_values(gains: Tensor) -> Tensor:
    """One-sided p of "the mean gain is not above 0" for each column: `(n, m)` to `(m,)`."""
    means, errors = gains.double().mean(dim=0), gains.double().std(dim=0) / len(gains) ** 0.5  # (m,)
    # Without any spread a gain is certain, and no gain is none.
    statistic = torch.where(errors > 0, means / errors, means.sign() * torch.inf).nan_to_num(nan=0.0)
    return torch.from_numpy(student_t.sf(statistic.numpy(), len(gains) - 1))


def _checked(losses: Tensor, parts: Tensor | None) -> Tensor:
    """The parts of a table, `(N,)`."""
    if losses.ndim != 2 or losses.shape[1] < 2 or len(losses) < 2 or not bool(torch.isfinite(losses).all()):
        raise TaskError(
            f"losses of shape {tuple(losses.shape)} are no table of finite losses (inputs, prompts + 1) to choose by."
        )
    if parts is None:
        return torch.zeros(len(losses), dtype=torch.long)
    if parts.shape != (len(losses),) or bool((parts < 0).any()):
        raise TaskError(f"parts of shape {tuple(parts.shape)} do not number {len(losses)} inputs from 0.")
    return parts


def _check_choice(losses: Tensor, held_out: Tensor, count: int) -> None:
    if count < 1:
        raise TaskError(f"cannot choose {count} prompts; a bank needs one or more.")
    if held_out.shape != (len(losses),) or held_out.dtype != torch.bool:
        raise TaskError(f"held_out of shape {tuple(held_out.shape)} does not say of {len(losses)} inputs which judge.")
    if int(held_out.sum()) < 2 or int((~held_out).sum()) < 1:
        raise TaskError("prompts are chosen by some inputs and judged by at least two others; one side is missing.")


def _firsts(examples: Sequence[Example]) -> list[Example]:
    """One example of each different input, in the order in which they first appear."""
    firsts: dict[tuple[int, ...], Example] = {}
    for example in examples:
        firsts.setdefault(example.key, example)
    return list(firsts.values())


def _means(losses: Tensor, examples: Sequence[Example], firsts: Sequence[Example]) -> Tensor:
    """Mean losses of each input: `(N, m + 1)` to `(inputs, m + 1)`."""
    numbers = {example.key: number for number, example in enumerate(firsts)}
    places = torch.tensor([numbers[example.key] for example in examples])  # (N,)
    sizes = torch.bincount(places)  # (inputs,)
    return losses.new_zeros(len(sizes), losses.shape[1]).index_add(0, places, losses) / sizes[:, None]


def _parts_of(store: PrefixStore, examples: Sequence[Example], seed: int) -> Tensor:
    """Cut inputs into parts, `(N,)`."""
    inputs = [reading(store.lm, example) for example in examples]
    count = max(1, min(_MOST_PARTS, len(set(inputs)) // _INPUTS_A_PART))
    return clusters(context_states(store.lm, inputs), count, seed)


def _bank_of(store: PrefixStore, chosen: Sequence[Chosen], how: dict[str, int | float]) -> PromptBank:
    assert store.bank is not None  # noqa: S101  (choose_texts has checked it)
    prompts = []
    for choice in chosen:
        prompt, facts = store.bank[choice.index], asdict(choice)
        del facts["index"]  # of the pool, which the bank is not
        prompts.append(replace(prompt, provenance={**prompt.provenance, **facts}))
    source = {"chosen_from": dict(store.bank.provenance), "chosen_for": store.lm.fingerprint.to_dict()}
    return PromptBank(prompts, fingerprint=store.bank.fingerprint, provenance={**source, **how})
