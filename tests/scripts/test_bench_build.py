from __future__ import annotations

import pytest


def test_time_and_memory_by_hand(script):
    bench = script("bench_build")
    static = {"seconds": {"starting": 50.0, "static prompts": 20.0}, "peak_memory_bytes": 1000, "updates": 100}
    parts = {"seconds": {"static prompts": 20.0, "round 1": 70.0, "losses": 30.0}, "peak_memory_bytes": 1200}
    assert bench.compared(static, parts | {"updates": 400}) == pytest.approx(
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
    assert "static prompts" in printed
    assert "peak memory / static" in printed
