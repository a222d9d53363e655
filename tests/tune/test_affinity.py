from __future__ import annotations

import torch

from idp.tune.affinity import cluster_gradients
from idp.tune.objective import batch_loss


def test_the_gradient_of_a_cluster_is_that_of_its_mean_loss(tiny_lm, some_examples):
    lm, examples = tiny_lm(), some_examples(9, kinds="cat")
    assigned = [0, 2, 0, 2, 2, 0, 0, 2, 2]
    prompt = torch.randn(3, lm.hidden_size, generator=torch.Generator().manual_seed(0))
    done = []
    found = cluster_gradients(lm, prompt, examples, assigned, advance=done.append)
    assert found.shape == (3, prompt.numel()) and sum(done) == 3
    assert not found[1].any()  # nobody is there
    for cluster in (0, 2):
        own = [example for example, its in zip(examples, assigned, strict=True) if its == cluster]
        point = prompt.clone().requires_grad_()
        batch_loss(lm, point[None], own).mean().backward()
        torch.testing.assert_close(found[cluster], point.grad.flatten(), rtol=1e-4, atol=1e-6)
    assert not prompt.requires_grad


def test_of_a_large_cluster_a_sample_is_taken_by_the_seed(tiny_lm, some_examples, monkeypatch):
    from idp.tune import affinity

    monkeypatch.setattr(affinity, "_EXAMPLES", 4)
    lm, examples = tiny_lm(), some_examples(12, kinds="ca")
    prompt = torch.zeros(2, lm.hidden_size)
    zero, again, one = (cluster_gradients(lm, prompt, examples, [0] * 12, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(zero, again) and not torch.equal(zero, one)
