from __future__ import annotations

import pytest
import torch

from idp.errors import ModelError
from idp.tune.memory import recomputed, require_recomputation
from idp.tune.objective import Objective


def saved_bytes(lm, examples, recompute):
    """Bytes that a forward pass keeps for the backward pass, and the gradient."""
    kept = []

    def pack(tensor):
        kept.append(tensor.nbytes)
        return tensor

    prompt = 0.3 * torch.randn(3, lm.hidden_size, generator=torch.Generator().manual_seed(0))
    prompt.requires_grad_()
    objective = Objective(lm, recompute=recompute)
    if not recompute:
        objective.reach = 0  # the same plain rows
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step = objective.behind([prompt])
        loss = step.losses(objective.views(examples)).sum()
    loss.backward()
    step.backward()
    return sum(kept), prompt.grad


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "qwen2"])
def test_less_is_kept_and_gradients_are_the_same(tiny_lm, some_examples, architecture):
    lm, examples = tiny_lm(architecture), some_examples(6, kinds="c")
    (much, plain), (little, twice) = (saved_bytes(lm, examples, recompute) for recompute in (False, True))
    assert little < 0.7 * much
    torch.testing.assert_close(plain, twice, atol=1e-4, rtol=1e-4)


def test_the_model_is_as_it_was(tiny_lm):
    lm = tiny_lm()
    with pytest.raises(KeyError), recomputed(lm):
        assert any(module.training for module in lm.model.modules())
        raise KeyError
    assert not any(module.training for module in lm.model.modules())
    assert not lm.model.is_gradient_checkpointing
    assert not lm.embed(torch.tensor([3])).requires_grad


def test_layers_that_would_drop_out_are_refused(tiny_lm):
    lm = tiny_lm("opt", dropout=0.1)
    with pytest.raises(ModelError, match="cannot be computed twice"):
        Objective(lm, recompute=True)
    require_recomputation(tiny_lm("opt"))
