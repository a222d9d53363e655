from __future__ import annotations

import csv
import math

import pytest

from idp.errors import MissingExtraError
from idp.tune.curves import draw_curves, write_curves
from idp.tune.loop import Point

CURVES = {"static": [Point(0, math.nan, 2.5), Point(5, 2.25, 2.0)], "round-1/part-0": [Point(0, math.nan, 1.0)]}


def test_table(tmp_path):
    write_curves(tmp_path / "c.csv", CURVES)
    with open(tmp_path / "c.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0] == {"prompt": "static", "step": "0", "train": "", "held_out": "2.50000"}
    assert [row["train"] for row in rows] == ["", "2.25000", ""]
    assert rows[2]["prompt"] == "round-1/part-0"


@pytest.mark.parametrize("count", [1, 7])
def test_picture(tmp_path, count):
    pytest.importorskip("matplotlib")
    draw_curves(tmp_path / "c.png", {f"{name}-{i}": curve for i in range(count) for name, curve in CURVES.items()})
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_extra_is_named(tmp_path, without):
    without("matplotlib")
    with pytest.raises(MissingExtraError, match=r"idp\[plot\]"):
        draw_curves(tmp_path / "c.png", CURVES)
