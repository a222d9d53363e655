"""Tests of idp.model.memory; tests of real checkpoints are in test_kinds.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from idp.model.compression import Compression
from idp.model.memory import Held, held
from idp.model.weights import StoredTensor

EMBEDDING = StoredTensor("embed.weight", (10, 8), "BF16", Path("f"))


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "compression", "expected"),
    [
        ("up.weight", (4, 8), "F16", Compression(), Held(112, 0)),
        ("up.weight_packed", (4, 1), "I32", Compression("compressed-tensors", 4), Held(80 + 4 * 8, 0)),
        ("up.weight", (4, 8), "F8_E4M3", Compression("compressed-tensors", 8), Held(112, 0)),
        ("up.qweight", (1, 4), "I32", Compression("gptq", 4), Held(80, 16)),
        ("up.weight", (16, 1), "U8", Compression("bitsandbytes", 4), Held(80, 16)),
    ],
)
def test_what_is_unpacked_counts_as_numbers_and_the_rest_as_bytes(name, shape, dtype, compression, expected):
    assert held([EMBEDDING, StoredTensor(name, shape, dtype, Path("f"))], compression) == expected


def test_bytes_go_with_the_type():
    assert Held(10, 5).bytes(2) == 25
