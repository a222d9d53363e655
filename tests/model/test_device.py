"""Tests of idp.model.device."""

from __future__ import annotations

import pytest
import torch

from idp.errors import ModelError
from idp.model import device as devices
from idp.model.device import resolve_device, resolve_dtype


def test_auto_is_the_cpu_where_there_is_nothing_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")


def test_auto_prefers_cuda_then_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device().type == "cuda"


def test_a_device_may_be_given_as_such() -> None:
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x"])
def test_an_unknown_device_is_an_error(name: str) -> None:
    with pytest.raises(ModelError, match="unknown device"):
        resolve_device(name)


def test_a_cuda_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda:0").index == 0
    with pytest.raises(ModelError, match="torch sees 1 CUDA"):
        resolve_device("cuda:1")


def test_mps_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelError, match="use cpu"):
        resolve_device("mps")


@pytest.mark.parametrize("faster", [torch.float32, torch.bfloat16])
def test_auto_dtype_on_a_cpu_depends_on_its_hardware(monkeypatch: pytest.MonkeyPatch, faster: torch.dtype) -> None:
    monkeypatch.setattr(devices, "faster_cpu_dtype", lambda: faster)
    for capable, dtype in [(False, torch.float32), (True, faster)]:
        monkeypatch.setattr(devices, "cpu_has_bf16", lambda capable=capable: capable)
        assert resolve_dtype("auto", "cpu") == dtype


@pytest.mark.parametrize(("capable", "dtype"), [(False, torch.float16), (True, torch.bfloat16)])
def test_auto_dtype_on_cuda_depends_on_its_age(
    monkeypatch: pytest.MonkeyPatch, capable: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capable)
    assert resolve_dtype("auto", "cuda") == dtype


def test_auto_dtype_on_mps() -> None:
    assert resolve_dtype("auto", "mps") == torch.bfloat16


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_bf16_hardware_is_read_from_the_cpu(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, flag: False}, raising=False)
    assert not devices.cpu_has_bf16()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, flag: True}, raising=False)
    assert devices.cpu_has_bf16()


def test_without_a_list_of_capabilities_bf16_is_not_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not devices.cpu_has_bf16()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_dtype_may_be_given_by_name_or_as_such(dtype: str) -> None:
    assert resolve_dtype(dtype) == resolve_dtype(getattr(torch, dtype)) == getattr(torch, dtype)


@pytest.mark.parametrize("dtype", ["flaot32", "int8", "float64", torch.int8])
def test_an_unknown_dtype_is_an_error(dtype: str | torch.dtype) -> None:
    with pytest.raises(ModelError, match=r"unknown dtype .*Known: auto, bfloat16, float16, float32"):
        resolve_dtype(dtype)
