"""Tuning curves as a table and as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from idp.files import atomic_write_bytes, atomic_write_text
from idp.pictures import require_matplotlib
from idp.tune.loop import Point

__all__ = ["draw_curves", "write_curves"]

_COLUMNS = 5


def write_curves(path: Path, curves: Mapping[str, Sequence[Point]]) -> None:
    """Write curves as CSV with the columns prompt, step, train, held_out; training loss is empty where there is none.

    Raises:
        OutputError: the file cannot be written.
    """
    rows = [
        f"{name},{p.step},{'' if math.isnan(p.train) else format(p.train, '.5f')},{p.held_out:.5f}"
        for name, curve in curves.items()
        for p in curve
    ]
    atomic_write_text(path, "\n".join(["prompt,step,train,held_out", *rows]) + "\n")


def draw_curves(path: Path, curves: Mapping[str, Sequence[Point]]) -> None:
    """Draw a panel for every prompt, training and held-out loss over the steps, as PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    matplotlib = require_matplotlib()
    wide = min(_COLUMNS, len(curves))
    high = -(-len(curves) // wide)
    figure = matplotlib.Figure(figsize=(3.2 * wide, 2.4 * high), layout="constrained")
    panels = figure.subplots(high, wide, squeeze=False).flatten()
    for panel, (name, curve) in zip(panels, curves.items(), strict=False):
        steps = [point.step for point in curve]
        panel.plot(steps, [point.train for point in curve], label="training", color="0.6")
        panel.plot(steps, [point.held_out for point in curve], label="held out", color="tab:blue")
        best = min(curve, key=lambda point: point.held_out)
        panel.plot([best.step], [best.held_out], "o", color="tab:blue", markersize=4)
        panel.set_title(name, fontsize=9)
    for panel in panels[len(curves) :]:
        panel.set_axis_off()
    panels[0].legend(fontsize=8)
    figure.supxlabel("updates")
    figure.supylabel("loss")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    atomic_write_bytes(path, buffer.getvalue())
