from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idp.errors import ModelError
from idp.model.compression import Compression, compression_of


@pytest.mark.parametrize(
    ("settings", "expected", "phrase"),
    [
        (None, Compression(), "none"),
        (
            {"quant_method": "gptq", "bits": 3, "group_size": 128, "desc_act": True},
            Compression("gptq", 3, 128, "act order"),
            "gptq, 3 bits, groups of 128, act order",
        ),
        ({"quant_method": "awq", "bits": 4, "group_size": -1}, Compression("awq", 4), "awq, 4 bits"),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
            Compression("bitsandbytes", 4, None, "nf4"),
            "bitsandbytes, 4 bits, nf4",
        ),
        (
            {"quant_method": "bitsandbytes", "load_in_8bit": True},
            Compression("bitsandbytes", 8),
            "bitsandbytes, 8 bits",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 128, "type": "int"}}},
                "sparsity_config": {},
            },
            Compression("compressed-tensors", 4, 128, "pack-quantized"),
            "compressed-tensors, 4 bits, groups of 128, pack-quantized",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "float-quantized",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "group_size": None, "type": "float"}}},
            },
            Compression("compressed-tensors", 8, None, "float, float-quantized"),
            "compressed-tensors, 8 bits, float, float-quantized",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "dense",
                "config_groups": {},
                "sparsity_config": {"format": "sparse-24-bitmask", "sparsity_structure": "2:4"},
            },
            Compression("compressed-tensors", None, None, "2:4"),
            "compressed-tensors, 2:4",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 8}}, "c": {}},
            },
            Compression("compressed-tensors"),
            "compressed-tensors",
        ),
        ({"quant_method": "brand-new"}, Compression("brand-new"), "brand-new"),
    ],
)
def test_configurations_of_every_kind(settings, expected, phrase):
    found = compression_of({} if settings is None else {"quantization_config": settings})
    assert found == expected
    assert found.describe() == phrase


@given(
    st.dictionaries(
        st.sampled_from(["bits", "group_size", "desc_act", "config_groups", "sparsity_config", "format"]),
        st.one_of(st.none(), st.integers(-2, 16), st.just({})),
    ),
    st.sampled_from(["gptq", "bitsandbytes", "fp8", ""]),
)
def test_strange_settings_are_no_error(settings, method):
    assert compression_of({"quantization_config": {**settings, "quant_method": method}}).method == method


def test_a_configuration_of_another_form_is_an_error():
    with pytest.raises(ModelError, match="no mapping of names to values"):
        compression_of({"quantization_config": "gptq"})
