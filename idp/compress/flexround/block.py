"""Learning the rounding of one block, so that its output stays what it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from idp.compress.flexround.rounding import FlexRound, Grid, round_to_nearest

__all__ = ["BlockInput", "Errors", "Learning", "block_output", "learn_block"]


class BlockInput(NamedTuple):
    """What a block is called with for some rows of text.

    Attributes:
        hidden: hidden states, `(B, T, d)`.
        arguments: everything else, by name: masks, positions, rotary embeddings.
    """

    hidden: Tensor
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Learning:
    """How the rounding of a block is learned.

    Attributes:
        iterations: steps of Adam.
        learning_rate: at the first step; it falls to 0 along a cosine.
        batch_size: batches of calibration text a step.
        mixed: share of the input's values that come from the uncompressed model (as QDrop does), drawn anew each step.
        seed: of the batches and of what is mixed.
    """

    iterations: int = 5000
    learning_rate: float = 2.5e-3
    batch_size: int = 2
    mixed: float = 0.5
    seed: int = 0


class Errors(NamedTuple):
    """Mean squared error of a block's output, with the inputs it has in the compressed model.

    Attributes:
        nearest: of rounding to nearest, which is where learning starts.
        learned: of what was kept in the end.
        scale: mean square of the output itself.
    """

    nearest: float
    learned: float
    scale: float


@torch.no_grad()
def learn_block(
    block: nn.Module,
    grids: Mapping[str, Grid],
    inputs: Sequence[BlockInput],
    uncompressed: Sequence[Tensor],
    learning: Learning,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[dict[str, tuple[Tensor, Grid]], list[Tensor], Errors]:
    """Learn the rounding of all matrices of a block together.

    Minimised is `sum_t |block_hat(x) - block(x_dense)|^2`, the mean over rows and widths, where `x` is what the block
    is given in the compressed model with a share of values from the uncompressed one.

    Args:
        block: a decoder layer with its uncompressed weights; it is left as it was.
        grids: where each matrix is rounded to, by the name of its linear layer within the block.
        inputs: calibration text as the block is given it in the compressed model, one row or more each.
        uncompressed: the hidden states it is given in the uncompressed model, `(B, T, d)` each.
        learning: how.
        advance: called with the number of iterations just done.

    Returns:
        Rounded matrices with their grids, by name; the block's outputs in the uncompressed model; and the errors. Where
        learning made the output worse, matrices are rounded to nearest.

    Source: arXiv 2306.00317 and its repository: Adam, cosine to 0, 5,000 iterations, inputs mixed as in QDrop.
    """
    arguments = [each.arguments for each in inputs]
    targets = [block_output(block, BlockInput(*pair)) for pair in zip(uncompressed, arguments, strict=True)]
    matrices = {name: block.get_submodule(name).get_parameter("weight") for name in grids}
    roundings = {name: FlexRound(matrices[name], grid) for name, grid in grids.items()}
    _learn(block, roundings, inputs, uncompressed, targets, learning, advance)
    learned = {name: rounding.settled() for name, rounding in roundings.items()}
    nearest = {name: (round_to_nearest(matrices[name], grid), grid) for name, grid in grids.items()}
    before, after = (_error(block, _weights(each), inputs, targets) for each in (nearest, learned))
    scale = sum(float(target.float().square().mean()) for target in targets) / len(targets)
    better = after <= before  # and not NaN
    return (learned if better else nearest), targets, Errors(before, after if better else before, scale)


@torch.enable_grad()
def _learn(
    block: nn.Module,
    roundings: Mapping[str, FlexRound],
    inputs: Sequence[BlockInput],
    uncompressed: Sequence[Tensor],
    targets: Sequence[Tensor],
    learning: Learning,
    advance: Callable[[int], None],
) -> None:
    # An optimiser for each matrix, so that the gradients of one are gone before those of the next come.
    optimisers = {
        name: torch.optim.Adam(rounding.parameters(), lr=learning.learning_rate, foreach=False)
        for name, rounding in roundings.items()
    }
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(each, learning.iterations) for each in optimisers.values()]
    generator = torch.Generator().manual_seed(learning.seed)
    for _ in range(learning.iterations):
        rounded = {name: rounding() for name, rounding in roundings.items()}
        leaves = {name: weight.detach().requires_grad_() for name, weight in rounded.items()}
        weights = {f"{name}.weight": leaf for name, leaf in leaves.items()}
        for row in torch.randint(len(inputs), (learning.batch_size,), generator=generator).tolist():
            mixed = _mix(inputs[row], uncompressed[row], learning.mixed, generator)
            output = block_output(block, mixed, weights)  # (B, T, d)
            ((output - targets[row]).float().square().sum(dim=1).mean() / learning.batch_size).backward()
        for name, optimiser in optimisers.items():  # through the rounding once a step, not once a row
            if leaves[name].grad is not None:  # else nothing of these rows went through it
                rounded.pop(name).backward(leaves[name].grad)
            optimiser.step()
            optimiser.zero_grad()
        del leaves, weights, output  # or those of the next step would stand beside them
        for schedule in schedules:
            schedule.step()
        advance(1)


def block_output(block: nn.Module, given: BlockInput, weights: Mapping[str, Tensor] | None = None) -> Tensor:
    """Return a block's hidden states `(B, T, d)`, with other weights in place of its own if there are any."""
    others = {name: weight.to(given.hidden.dtype) for name, weight in (weights or {}).items()}
    output = functional_call(block, others, (given.hidden,), dict(given.arguments))
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _mix(given: BlockInput, dense: Tensor, share: float, generator: torch.Generator) -> BlockInput:
    drawn = torch.rand(dense.shape, generator=generator).to(dense.device)  # (B, T, d)
    return given._replace(hidden=torch.where(drawn < share, dense, given.hidden))


def _weights(settled: Mapping[str, tuple[Tensor, Grid]]) -> dict[str, Tensor]:
    return {f"{name}.weight": weight for name, (weight, _) in settled.items()}


@torch.no_grad()
def _error(
    block: nn.Module, weights: Mapping[str, Tensor], inputs: Sequence[BlockInput], targets: Sequence[Tensor]
) -> float:
    errors = [
        float((block_output(block, given, weights) - target).float().square().mean())
        for given, target in zip(inputs, targets, strict=True)
    ]
    return sum(errors) / len(errors)
