from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from idp.errors import MissingExtraError
from idp.select.codes import Codes, has_faiss

KEYS = normalize(torch.randn(400, 12, generator=torch.Generator().manual_seed(0)), dim=1)
SOME = np.arange(5, 400, 3)


@pytest.fixture(scope="module")
def codes():
    return Codes.build(KEYS, SOME)


def test_the_same_keys_give_the_same_bytes_and_they_can_be_read_again(codes):
    assert torch.equal(codes.tensor, Codes.build(KEYS, SOME).tensor)
    again = Codes.open(codes.tensor, 12, 400)
    assert torch.equal(again.tensor, codes.tensor)
    assert [row.tolist() for row in again.search(KEYS[:5], 9)] == [row.tolist() for row in codes.search(KEYS[:5], 9)]


@pytest.mark.parametrize("width", [1, 2, 7, 12])
def test_keys_are_found_by_their_places(width):
    keys = normalize(KEYS[:, :width], dim=1)
    codes = Codes.build(keys, SOME)
    assert len(codes) == len(SOME)
    found = codes.search(keys[SOME[:30]], 40)
    assert all(len(row) == 40 and np.all(np.diff(row) > 0) and set(row) <= set(SOME) for row in found)
    best = [(keys[row] @ keys[place]).max() for row, place in zip(found, SOME, strict=False)]
    assert min(best) > 0.9
    assert codes.search(keys[8:9], 40)[0].tolist() == found[1].tolist()  # alone as among others


def test_asked_for_more_than_there_are_it_gives_what_there_is():
    one = Codes.build(KEYS, np.array([7]))
    assert [row.tolist() for row in one.search(KEYS[:3], 4)] == [[7]] * 3


@pytest.mark.parametrize("kept", [0, 10, 200, -50])
def test_bytes_that_are_no_index(codes, kept):
    with pytest.raises(ValueError, match="no index"):
        Codes.open(codes.tensor[:kept].clone(), 12, 400)


def test_an_index_of_other_vectors(codes):
    with pytest.raises(ValueError, match="width 11"):
        Codes.open(codes.tensor, 11, 400)
    with pytest.raises(ValueError, match="132 vectors for 398 places"):
        Codes.open(codes.tensor, 12, int(SOME[-1]))


def test_an_index_of_another_kind():
    import faiss

    flat = torch.from_numpy(faiss.serialize_index(faiss.IndexFlatIP(12)))
    with pytest.raises(ValueError, match="not an index of vectors"):
        Codes.open(flat, 12, 400)


def test_without_the_library_the_error_says_what_to_install(codes, monkeypatch):
    assert has_faiss()
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'idp\[scale\]'"):
        Codes.open(codes.tensor, 12, 400)
