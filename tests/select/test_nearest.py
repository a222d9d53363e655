from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from idp.errors import SelectorError
from idp.select.codes import Codes
from idp.select.nearest import Nearest
from idp.select.nearest import _distinct as distinct

NAN = float("nan")


def _clusters(count, seed, width=16, centres=40):
    random = torch.Generator().manual_seed(seed)
    centre = torch.randn(centres, width, generator=torch.Generator().manual_seed(0))
    drawn = torch.randint(centres, (count,), generator=random)
    return normalize(centre[drawn] + 0.5 * torch.randn(count, width, generator=random), dim=1)


@pytest.fixture(scope="module")
def keys():
    return _clusters(3000, seed=1)


@pytest.fixture(scope="module")
def indexed(keys):
    return Nearest.indexed(keys, _clusters(300, seed=2))[0]


def _by_hand(keys, queries):
    cosines = torch.cosine_similarity(queries.double()[:, None], keys.double()[None], dim=-1)
    return torch.nan_to_num(cosines, nan=-torch.inf)  # (N, m + 1)


COORDINATES = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=3, max_size=3)


@settings(deadline=None)
@given(
    st.lists(st.one_of(COORDINATES, st.just([NAN] * 3)), min_size=1, max_size=30),
    st.lists(COORDINATES, min_size=1, max_size=5),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_both_ways_choose_the_first_of_the_largest_cosines(rows, queries, dtype):
    keys, asked = normalize(torch.tensor(rows, dtype=dtype), dim=1), torch.tensor(queries, dtype=torch.float64)
    if bool(keys.isnan().any(dim=1).all()):
        with pytest.raises(SelectorError, match="no arm has a key"):
            Nearest(keys).choose(asked)
        return
    ways = [Nearest(keys), Nearest(keys, Codes.build(keys, distinct(keys)))]
    wanted = _by_hand(keys, asked)
    for nearest in ways:
        for row, choice in zip(wanted, nearest.choose(asked), strict=True):
            place = len(keys) - 1 if choice.index == -1 else choice.index
            assert row[place] >= row.max() - 1e-12
            assert not (row[:place] > row.max() + 1e-12).any()
            assert choice.scores == pytest.approx(row.tolist())
            assert choice.score == choice.scores[choice.index] == max(choice.scores)
            assert choice.scores.index(choice.score) == place  # the first that has it
    assert [choice.index for choice in ways[0].choose(asked)] == [choice.index for choice in ways[1].choose(asked)]


def test_an_index_finds_nearly_all_exact_choices(keys, indexed):
    queries = _clusters(500, seed=3)
    exact = Nearest(keys).choose(queries)
    assert np.mean([one.index == other.index for one, other in zip(exact, indexed.choose(queries), strict=True)]) > 0.98


def test_a_choice_does_not_depend_on_the_batch(keys, indexed):
    queries = _clusters(40, seed=4)
    for nearest in (Nearest(keys), indexed):
        together = nearest.choose(queries)
        alone = [nearest.choose(query[None])[0] for query in queries]
        assert [(one.index, one.score) for one in together] == [(one.index, one.score) for one in alone]
    assert indexed.choose(queries[:0]) == []


def test_equal_keys_are_indexed_once_and_the_first_wins(keys):
    doubled = torch.cat([keys[:200], keys[:200], keys[:1]])
    nearest = Nearest.indexed(doubled)[0]
    assert len(nearest.codes) == 200
    assert all(choice.index == place for place, choice in enumerate(nearest.choose(keys[:200])))


def test_many_equal_keys_are_not_too_many_for_the_matrix_product():
    keys = torch.zeros(500, 3)
    keys[:, 0] = 1
    assert Nearest(keys).choose(torch.tensor([[1.0, 0.1, 0.0]]))[0].index == 0


def test_no_prompt_is_an_arm_like_others(keys, indexed):
    for nearest in (Nearest(keys), indexed):
        assert nearest.choose(keys[-1:])[0].index == -1


def test_rounding_of_the_product_does_not_decide():
    keys = normalize(torch.tensor([[1.0, 1e-4, 0.0], [1.0, 1.5e-4, 0.0], [0.0, 0.0, 1.0]]).double(), dim=1).float()
    products = torch.tensor([[1.0, 1e-4, 0.0]]) @ keys.T
    assert products[0, 0] == products[0, 1]
    query = torch.tensor([[1.0, 1.5e-4, 0.0]], dtype=torch.float64)
    assert Nearest(keys).choose(query)[0].index == int(_by_hand(keys, query).argmax()) == 1


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_broken_queries_and_keys(keys, indexed, value):
    for nearest in (Nearest(keys), indexed):
        with pytest.raises(SelectorError, match="NaN or infinity"):
            nearest.choose(torch.full((1, 16), value))
    with pytest.raises(SelectorError, match="no arm has a key"):
        Nearest.indexed(torch.full((3, 16), NAN))
    if value == value:
        with pytest.raises(ValueError, match="length is not 1"):
            Nearest(torch.full((3, 16), value))
    with pytest.raises(ValueError, match="length is not 1"):
        Nearest(2 * keys)
