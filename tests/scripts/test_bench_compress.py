from __future__ import annotations

import json
import sys

import pytest


def test_the_proportions_are_those_of_llama_7b(script):
    assert script("bench_compress").proportions(4096, 32)["intermediate_size"] == 11_008


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_memory_and_time_are_measured(script, tmp_path, capfd):
    bench = script("bench_compress")
    report = tmp_path / "report.json"
    bench.main(["rtn"], width=256, layers=2, rows=2, row_tokens=32, threads=1, json_file=report, child=None)
    [row] = json.loads(report.read_text())["recipes"]
    assert row["recipe"] == "rtn"
    assert row["block_bytes"] == 4 * (4 * 256**2 + 3 * 256 * 688 + 2 * 256)
    assert 0 <= row["blocks"] < 40
    assert "blocks above the dense model" in capfd.readouterr().out
