from __future__ import annotations

import pytest
import torch

from idp.errors import TaskError
from idp.tune.examples import Example
from idp.tune.partition import Partition


def topic(token, count):
    return [Example((1, token, token, token, 5 + i), ((7,),), 0, "t") for i in range(count)]


def clusters(lm, examples, k, seed):
    return Partition.fit(lm, examples, k, seed).assign(lm, examples)


def test_finds_topics_without_labels_and_numbers_them_by_size(tiny_lm):
    found = clusters(tiny_lm(), [*topic(20, 4), *topic(90, 9), *topic(200, 6)], 3, seed=0)
    assert found == [2] * 4 + [0] * 9 + [1] * 6


def test_same_seed_same_clusters(tiny_lm, some_examples):
    examples = some_examples(30, kinds="ca")
    assert clusters(tiny_lm(), examples, 4, 0) == clusters(tiny_lm(), examples, 4, 0)


def test_new_examples_go_to_the_nearest_centroid(tiny_lm):
    lm = tiny_lm()
    parts = Partition.fit(lm, [*topic(20, 8), *topic(90, 5)], 2, seed=0)
    assert parts.assign(lm, [*topic(90, 1), *topic(20, 1)]) == [1, 0]
    assert torch.isfinite(parts.centroids).all()


def test_equal_contexts_share_a_cluster(tiny_lm, some_examples):
    examples = [*some_examples(10, kinds="a"), *[Example((1,), ((9, 8),), 0, "text")] * 3]
    assert len(set(clusters(tiny_lm(), examples, 3, 0)[-3:])) == 1


@pytest.mark.parametrize("k", [0, 5])
def test_an_impossible_number_of_clusters_is_refused(tiny_lm, k):
    with pytest.raises(TaskError, match="ask for 1 to 4"):
        clusters(tiny_lm(), topic(20, 4), k, 0)


def test_clusters_that_ask_for_the_same_become_one_part(tiny_lm):
    lm = tiny_lm()
    examples = [*topic(20, 4), *topic(90, 9), *topic(200, 6)]
    fine = Partition.fit(lm, examples, 3, seed=0)
    gradients = torch.tensor([[0.0, 3.0], [1.0, 0.1], [0.0, 0.5]])  # of the topics 90, 200 and 20
    parts = fine.merged(gradients, 2)
    assert parts.assign(lm, examples) == [0] * 4 + [0] * 9 + [1] * 6
    # Only directions count, and the larger part is the first: with 200 and 20 together they outweigh 90.
    parts = fine.merged(torch.tensor([[0.0, 3.0], [1.0, 0.1], [0.5, 0.0]]), 2)
    assert parts.assign(lm, examples) == [0] * 4 + [1] * 9 + [0] * 6


@pytest.mark.parametrize(
    ("gradients", "k", "message"),
    [
        (torch.eye(3)[:2], 1, "2 gradients for 3"),
        (torch.ones(3, 2), 2, "1 different"),
        (torch.eye(3), 4, "1 to 3"),
        (torch.eye(3), 0, "1 to 3"),
    ],
)
def test_an_impossible_merger_is_refused(tiny_lm, gradients, k, message):
    fine = Partition.fit(tiny_lm(), [*topic(20, 4), *topic(90, 9), *topic(200, 6)], 3, seed=0)
    with pytest.raises(TaskError, match=message):
        fine.merged(gradients, k)
