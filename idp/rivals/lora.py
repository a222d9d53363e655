"""LoRA: a small repair of the weights, trained on the answers that prompts are tuned on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from idp.bank.peft import require_peft
from idp.errors import ModelError
from idp.model.loaded import LanguageModel
from idp.model.needs import quantization_method
from idp.observer import Observer, Silent
from idp.run.inputs import pad_right
from idp.tune.plan import Plan, make_optimizer
from idp.tune.steps import drawn

if TYPE_CHECKING:
    from idp.tune.examples import Example

__all__ = ["repaired", "require_repairable"]

_IGNORED = -100


def require_repairable(lm: LanguageModel) -> None:
    """Check that weights may be trained.

    Raises:
        MissingExtraError: peft is not installed.
        ModelError: the model is quantised; merging would need its weights dense.
    """
    require_peft()
    if method := quantization_method(lm.model.config):
        raise ModelError(f"{lm.name} is quantised ({method}), and LoRA is merged into plain weights here.")


def repaired(
    lm: LanguageModel, examples: Sequence[Example], rank: int, plan: Plan, observer: Observer | None = None
) -> LanguageModel:
    """Train LoRA of a rank in every linear layer on right answers, and merge it into the weights.

    Args:
        lm: the model, whose weights are changed: it is not to be used afterwards.
        examples: what is trained on, contexts with their right answers.
        rank: of the matrices; alpha is twice that.
        plan: steps, rate, batch and seed.
        observer: is told of progress.

    Returns:
        The repaired model.

    Raises:
        MissingExtraError: peft is not installed.
        ModelError: the model is quantised.

    Source: arXiv 2106.09685, by peft.

    Example:
        >>> repaired(load("reference"), tuning, 8, Plan(400, 3e-3)).name  # doctest: +SKIP
        'reference with LoRA'
    """
    require_repairable(lm)
    peft: Any = require_peft()
    told = observer or Silent()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
        model = peft.get_peft_model(lm.model, config)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    told.stage(f"LoRA of rank {rank}, {sum(each.numel() for each in parameters):,} parameters", plan.steps)
    _train(model, parameters, lm.pad_token_id, examples, plan, told)
    return LanguageModel(model.merge_and_unload().eval(), lm.tokenizer, f"{lm.name} with LoRA")


def _train(
    model: Any, parameters: list[Any], pad: int, examples: Sequence[Example], plan: Plan, observer: Observer
) -> None:
    optimizer = make_optimizer(plan, parameters)
    device = parameters[0].device
    for step in range(plan.steps):
        batch = [examples[place] for place in drawn(len(examples), plan, step)]
        ids, mask, labels = (each.to(device) for each in _padded(batch, pad))
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]  # (B, T - 1, V)
        torch.autograd.backward(cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED))
        torch.nn.utils.clip_grad_norm_(parameters, plan.clip)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        observer.advance(1)


def _padded(examples: Sequence[Example], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, mask and labels of contexts with their right answers, `(B, T)` each."""
    ids, mask = pad_right([[*example.context, *example.right] for example in examples], pad)
    labels, _ = pad_right([[*[_IGNORED] * len(example.context), *example.right] for example in examples], _IGNORED)
    return ids, mask, labels
