"""Whether a CPU runs models faster in bfloat16 than in float32: measured once on a machine, and kept."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import math
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor

from idp.errors import OutputError
from idp.files import atomic_write_text, json_text
from idp.resources import cache_dir

__all__ = ["faster_cpu_dtype"]

logger = logging.getLogger(__name__)

_CLEARLY = 1.2
"""How many times as fast bfloat16 has to be to be chosen: it has 8 bits of precision, float32 has 24."""

_ROUNDS = (2, 6)
"""Fewest and most passes in each type."""

_SECONDS = 0.4
"""After which no further pass is begun."""

_ROWS, _LENGTH, _WIDTH, _HEADS, _INNER = 2, 128, 576, 9, 1536
"""Texts, tokens of each, and the shape of SmolLM2-135M's layers."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_IDENTITY = ("vendor_id", "cpu family", "model", "model name", "stepping", "CPU implementer", "CPU part", "CPU variant")
"""What `/proc/cpuinfo` says of the kind of CPU."""


def faster_cpu_dtype() -> torch.dtype:
    """Return bfloat16 if the CPU runs a decoder layer in it at least 1.2 times as fast as in float32, else float32.

    One core is timed, by the time that it works and not by the clock: other programs on the machine do not count, nor
    does the number of threads. The times are kept in the cache, by the kind of CPU and the version of torch, so that
    results do not depend on which of two nearly equal types was a little faster this time. It takes half a second;
    where the cache cannot be written to, once a process.

    Example:
        >>> faster_cpu_dtype() in (torch.float32, torch.bfloat16)  # doctest: +SKIP
        True
    """
    seconds = _seconds(_cpu(), torch.__version__)
    return torch.bfloat16 if seconds["float32"] >= _CLEARLY * seconds["bfloat16"] else torch.float32


@functools.cache
def _seconds(cpu: str, version: str) -> dict[str, float]:
    """What a pass takes in each type: as it was kept, else as it is measured."""
    name = hashlib.sha256(f"{cpu}\n{version}".encode()).hexdigest()[:16]
    file = cache_dir() / "cpu" / f"{name}.json"
    if (kept := _kept(file)) is not None:
        return kept
    lock = FileLock(file.with_suffix(".lock"))
    with contextlib.suppress(OSError, NotImplementedError):  # no reason not to measure
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=10)
    try:
        seconds = _kept(file) or _measure()  # another process may have been quicker
        with contextlib.suppress(OutputError):
            atomic_write_text(file, json_text({"cpu": cpu, "torch": version, "seconds": seconds}))
    finally:
        lock.release()
    logger.info("a decoder layer takes %s seconds on this CPU", seconds)
    return seconds


def _kept(file: Path) -> dict[str, float] | None:
    """The times in a file; None if there is none, or it is damaged."""
    try:
        seconds = json.loads(file.read_text(encoding="utf-8"))["seconds"]
        times = {name: float(seconds[name]) for name in _DTYPES}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return times if all(math.isfinite(each) and each > 0 for each in times.values()) else None


def _cpu() -> str:
    """Name the kind of CPU; one that runs under another system or another hypervisor may be another."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except (OSError, UnicodeDecodeError):
        first = ""
    pairs = [line.partition(":") for line in first.splitlines()]
    said = [f"{name.strip()} {value.strip()}" for name, _, value in pairs if name.strip() in _IDENTITY]
    flags = sorted(name for name, has in torch.cpu.get_capabilities().items() if has is True)
    return ", ".join([*said, platform.machine(), platform.processor(), *flags])


def _measure() -> dict[str, float]:
    """Time a decoder layer in each type, in turn: seconds a pass on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            passes = {name: _layer(dtype) for name, dtype in _DTYPES.items()}
            return _in_turn(passes)
    finally:
        torch.set_num_threads(threads)


def _in_turn(passes: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    end, taken = time.perf_counter() + _SECONDS, {name: 0.0 for name in passes}
    for run in passes.values():  # the first pass of all is slower
        run()
    fewest, most = _ROUNDS
    for rounds in range(1, most + 1):
        for name, run in passes.items():
            begun = time.thread_time()
            run()
            taken[name] += time.thread_time() - begun
        if rounds >= fewest and time.perf_counter() > end:
            break
    return {name: each / rounds for name, each in taken.items()}


def _layer(dtype: torch.dtype) -> Callable[[], Tensor]:
    """A pass through a decoder layer as LLaMA has it, with random weights."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return (0.05 * torch.randn(*shape, generator=generator)).to(dtype)

    query, key, value, out = (drawn(_WIDTH, _WIDTH) for _ in range(4))  # each (d, d)
    gate, up, down = drawn(_INNER, _WIDTH), drawn(_INNER, _WIDTH), drawn(_WIDTH, _INNER)
    states, norm = drawn(_ROWS, _LENGTH, _WIDTH), drawn(_WIDTH)  # (B, T, d), (d,)

    def heads(normed: Tensor, weight: Tensor) -> Tensor:
        return F.linear(normed, weight).view(_ROWS, _LENGTH, _HEADS, -1).transpose(1, 2)  # (B, h, T, d / h)

    def run() -> Tensor:
        normed = F.rms_norm(states, (_WIDTH,), norm)  # (B, T, d)
        asked, keys, values = (heads(normed, weight) for weight in (query, key, value))
        mixed = F.scaled_dot_product_attention(asked, keys, values, is_causal=True)  # (B, h, T, d / h)
        attended = states + F.linear(mixed.transpose(1, 2).flatten(2), out)  # (B, T, d)
        normed = F.rms_norm(attended, (_WIDTH,), norm)
        return attended + F.linear(F.silu(F.linear(normed, gate)) * F.linear(normed, up), down)

    return run
