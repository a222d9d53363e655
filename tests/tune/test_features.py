from __future__ import annotations

import pytest
import torch

from idp.errors import TaskError
from idp.tune.features import FEATURES, Source, features_of
from idp.tune.objective import Objective


@pytest.fixture
def source(tiny_lm):
    lm = tiny_lm()
    static = 0.3 * torch.randn(3, lm.hidden_size, generator=torch.Generator().manual_seed(0))
    return Source(Objective(lm), static, tiny_lm(seed=1), seed=0)


def test_every_kind_gives_a_row_an_example(source, some_examples):
    examples = some_examples(7)
    widths = {kind: features_of(source, examples, [kind]).shape[1] for kind in FEATURES}
    assert widths == {"damage": 32, "embedding": 32, "gradient": 64, "loss-gap": 1, "state": 32}
    together = features_of(source, examples, ["state", "loss-gap"])
    assert together.shape == (7, 33)
    assert torch.isfinite(together).all()


def test_what_was_not_broken_shows_no_damage(source, some_examples, tiny_lm):
    same = Source(source.objective, source.static, tiny_lm(), 0)
    for kind in ("damage", "loss-gap"):
        assert float(features_of(same, some_examples(5), [kind]).abs().max()) < 1e-5
        assert float(features_of(source, some_examples(5), [kind]).abs().max()) > 1e-3


def test_gradients_of_a_batch_are_those_of_each_example_alone(source, some_examples):
    examples = some_examples(6)
    together = features_of(source, examples, ["gradient"])
    alone = torch.cat([features_of(source, [example], ["gradient"]) for example in examples])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["damage", "loss-gap"])
def test_features_of_what_broke_need_the_dense_model(source, some_examples, kind):
    with pytest.raises(TaskError, match="need the dense model"):
        features_of(Source(source.objective, source.static, None, 0), some_examples(2), [kind])


@pytest.mark.parametrize(("kinds", "message"), [(["stat"], "Did you mean 'state'"), ([], "name the features")])
def test_unknown_features_are_refused(source, some_examples, kinds, message):
    with pytest.raises(TaskError, match=message):
        features_of(source, some_examples(2), kinds)
