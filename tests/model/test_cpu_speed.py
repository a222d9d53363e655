from __future__ import annotations

import json
import os
import threading
import time

import pytest
import torch

from idp.model import cpu_speed
from idp.model.cpu_speed import faster_cpu_dtype
from idp.model.device import resolve_dtype

SLOW = {"float32": 1.0, "bfloat16": 1 / 1.19}
FAST = {"float32": 1.0, "bfloat16": 1 / 1.21}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache of its own, and a process that remembers nothing."""
    monkeypatch.setenv("IDP_CACHE", str(tmp_path / "cache"))
    cpu_speed._seconds.cache_clear()
    yield tmp_path / "cache"
    cpu_speed._seconds.cache_clear()


@pytest.fixture
def measured(monkeypatch):
    """Give the times of the next measurements; those that were not asked for are left."""
    times = []
    monkeypatch.setattr(cpu_speed, "_measure", lambda: times.pop(0))
    return times


def in_another_process():
    cpu_speed._seconds.cache_clear()
    return faster_cpu_dtype()


def only_file(cache):
    (file,) = cache.rglob("*.json")
    return file


@pytest.mark.parametrize(("times", "dtype"), [(SLOW, torch.float32), (FAST, torch.bfloat16)])
def test_bfloat16_has_to_be_clearly_faster(measured, times, dtype):
    measured.append(times)
    assert faster_cpu_dtype() is dtype


@pytest.mark.parametrize("first", [SLOW, FAST])
def test_the_first_measurement_stays(measured, first):
    other = FAST if first is SLOW else SLOW
    measured += [first, other]
    assert faster_cpu_dtype() is faster_cpu_dtype() is in_another_process()
    assert measured == [other]


def test_auto_asks_for_it_where_the_cpu_has_bfloat16(measured, monkeypatch):
    monkeypatch.setattr("idp.model.device.cpu_has_bf16", lambda: True)
    measured.append(FAST)
    assert resolve_dtype("auto", "cpu") is torch.bfloat16
    assert not measured


def test_nothing_is_measured_where_the_cpu_has_no_bfloat16(measured, monkeypatch, cache):
    monkeypatch.setattr("idp.model.device.cpu_has_bf16", lambda: False)
    measured.append(FAST)
    assert resolve_dtype("auto", "cpu") is torch.float32
    assert measured == [FAST] and not cache.exists()


@pytest.mark.parametrize("what", ["cpu", "torch"])
def test_another_cpu_or_torch_is_measured_anew(measured, monkeypatch, what):
    measured += [SLOW, FAST]
    assert faster_cpu_dtype() is torch.float32
    with monkeypatch.context() as patch:
        if what == "cpu":
            patch.setattr(cpu_speed, "_cpu", lambda: "another")
        else:
            patch.setattr(torch, "__version__", "99.0")
        assert in_another_process() is torch.bfloat16
    assert in_another_process() is torch.float32  # the first is still known
    assert not measured


def test_threads_make_no_difference(measured, monkeypatch):
    """Or runs with one thread and with many would be in different types on a CPU where it is a close thing."""
    measured += [FAST, SLOW]
    assert faster_cpu_dtype() is torch.bfloat16
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert in_another_process() is torch.bfloat16


DAMAGED = [
    b"",
    b"\xff\xfe",
    b"{",
    b"[" * 100_000,
    b"null",
    b"[]",
    b'{"seconds": 3}',
    b'{"seconds": {"float32": 1}}',
    b'{"seconds": {"float32": 1, "bfloat16": 0}}',
    b'{"seconds": {"float32": NaN, "bfloat16": 1}}',
    b'{"seconds": {"float32": "fast", "bfloat16": 1}}',
    b'{"seconds": {"float32": [1], "bfloat16": 1}}',
    b'{"seconds": {"float32": 1e999, "bfloat16": 1}}',
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_made_again(measured, cache, content):
    measured += [SLOW, FAST]
    faster_cpu_dtype()
    only_file(cache).write_bytes(content)
    assert in_another_process() is torch.bfloat16
    assert json.loads(only_file(cache).read_text())["seconds"] == FAST


@pytest.mark.parametrize("error", [PermissionError, NotImplementedError])
def test_where_nothing_can_be_kept_a_process_measures_once(measured, monkeypatch, tmp_path, error):
    (tmp_path / "file").touch()
    monkeypatch.setenv("IDP_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(cpu_speed.FileLock, "acquire", lambda *given, **options: raised(error))
    measured += [FAST, SLOW]
    assert faster_cpu_dtype() is faster_cpu_dtype() is torch.bfloat16
    assert measured == [SLOW]


def raised(error):
    raise error


def test_two_at_once_come_to_the_same(monkeypatch):
    """As two processes would: the second waits for what the first measures."""
    times, found = [FAST, SLOW], []

    def measure():
        time.sleep(0.1)
        return times.pop(0)

    monkeypatch.setattr(cpu_speed, "_measure", measure)
    fresh = cpu_speed._seconds.__wrapped__  # what a process calls that remembers nothing
    threads = [threading.Thread(target=lambda: found.append(fresh("cpu", "torch"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [FAST, FAST] and times == [SLOW]


def test_a_measurement_takes_little_and_leaves_no_trace():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    begun = time.thread_time()
    seconds = cpu_speed._in_turn({"float32": cpu_speed._layer(torch.float32)})
    assert time.thread_time() - begun < 10 * seconds["float32"]
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)


def test_threads_are_as_before_even_if_it_fails(monkeypatch):
    threads, within = torch.get_num_threads(), []
    monkeypatch.setattr(cpu_speed, "_in_turn", lambda passes: within.append(torch.get_num_threads()) or raised(OSError))
    with pytest.raises(OSError):
        cpu_speed._measure()
    assert within == [1] and torch.get_num_threads() == threads


def test_both_types_are_timed_in_turn_and_not_for_long(monkeypatch):
    order, clock = [], iter(range(1000))
    monkeypatch.setattr(time, "thread_time", lambda: float(next(clock)))
    passes = {name: lambda name=name: order.append(name) for name in ("float32", "bfloat16")}
    assert cpu_speed._in_turn(passes) == {"float32": 1.0, "bfloat16": 1.0}
    assert order == ["float32", "bfloat16"] * 7
    order.clear()
    monkeypatch.setattr(cpu_speed, "_SECONDS", -1.0)
    cpu_speed._in_turn(passes)
    assert order == ["float32", "bfloat16"] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layer_is_computed_in_the_type(dtype):
    states = cpu_speed._layer(dtype)()
    assert states.dtype is dtype and states.shape == (2, 128, 576)
    assert states.isfinite().all()
    assert torch.allclose(states.float(), cpu_speed._layer(torch.float32)(), atol=0.05)


def test_a_system_without_a_list_of_cpus_is_named_all_the_same(monkeypatch):
    named = cpu_speed._cpu()
    monkeypatch.setattr(cpu_speed.Path, "read_text", lambda *given, **options: raised(FileNotFoundError))
    assert os.uname().machine in cpu_speed._cpu() and "\n" not in named
