from __future__ import annotations

import pytest

from idp.tune.config import BuildConfig


def test_time_and_memory_by_hand(script):
    bench = script("bench_build")
    static = {"seconds": {"starting": 50.0, "static prompt": 20.0}, "peak_memory_bytes": 1000}
    parts = {"seconds": {"static prompt": 20.0, "round 1": 70.0, "losses": 30.0}, "peak_memory_bytes": 1200}
    config = BuildConfig(steps=100, parts=5, part_steps=60)
    assert bench.updates(config) == 400
    assert bench.compared(config, static, parts) == pytest.approx(
        {
            "minutes": 2.0,
            "milliseconds an update, alone": 200.0,
            "time / updates alone": 1.5,
            "peak memory / static": 1.2,
        }
    )


@pytest.mark.slow
def test_builds_twice_and_prints(script, tmp_path, capfd):
    bench = script("bench_build")
    config = tmp_path / "small.yaml"
    config.write_text("{atlas: 40, steps: 2, part_steps: 2, parts: 2, sample: 20, batch_size: 4}")
    bench.main(model="reference", config=str(config), out=tmp_path / "out")
    printed = capfd.readouterr().out
    assert "static prompt" in printed
    assert "peak memory / static" in printed
