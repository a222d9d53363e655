"""The pictures of a report, as Vega-Lite specifications."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from idp.errors import needing
from idp.report.items import told
from idp.report.run import PLAIN, Run

__all__ = ["bundle", "charts", "require_charts"]

_BLUE, _ORANGE, _GREY = "#2f7fc1", "#d9822b", "#8a94a0"  # told apart by the colour-blind, and on white and black
_MOST_PROMPTS = 40
"""Columns of the map of choices; prompts that are chosen less often are put together."""

Chart = dict[str, Any]


def require_charts() -> tuple[Any, Any]:
    """Return what charts are made and shown with.

    Raises:
        MissingExtraError: altair or vl-convert is not installed.
    """
    with needing("charts need altair and vl-convert", "report"):
        import altair
        import vl_convert
    return altair, vl_convert


def bundle() -> str:
    """The scripts that draw charts in a browser without a network: Vega, Vega-Lite and Vega-Embed, 0.9 MB."""
    _, vl_convert = require_charts()
    script: str = vl_convert.javascript_bundle()
    return script


def charts(runs: Mapping[str, Run]) -> dict[str, Chart]:
    """Draw what there is to draw.

    Args:
        runs: by what to call them.

    Returns:
        Specifications by the name of the picture: `gap`, `divergence`, `tokens`, `seconds`; of a single run also
        `choices` and `items`.
    """
    altair, _ = require_charts()
    rows = [row for label, run in runs.items() for row in _arms(label, run)]
    drawn = {"gap": _forest(altair, rows, ("gap", "low", "high"), "gap recovered")}
    drawn["divergence"] = _forest(altair, rows, ("back", "back_low", "back_high"), "divergence given back")
    drawn |= {"tokens": _against(altair, rows, "prompt_tokens", "prompt tokens an input")}
    drawn["seconds"] = _against(altair, rows, "seconds", "seconds for all items")
    if len(runs) == 1:
        [run] = runs.values()
        drawn["choices"], drawn["items"] = _choices(altair, run), _items(altair, run)
    return {name: chart.to_dict(context={"pre_transform": False}) for name, chart in drawn.items() if chart is not None}


def _arms(label: str, run: Run) -> list[dict[str, Any]]:
    found = []
    for name, arm in run.arms.items():
        gap = run.idp["gap_recovered"].get(name) or {"value": None, "ci95": [None, None]}
        low, high = arm["ci95"] or (None, None)
        back = ((run.idp["divergence"] or {}).get("given_back") or {}).get(name) or {
            "value": None,
            "ci95": [None, None],
        }
        found.append(
            {
                "run": label,
                "arm": name,
                "mean": _percent(arm["mean"]),
                "mean_low": _percent(low),
                "mean_high": _percent(high),
                "gap": _percent(gap["value"]),
                "low": _percent(gap["ci95"][0]),
                "high": _percent(gap["ci95"][1]),
                "back": _percent(back["value"]),
                "back_low": _percent(back["ci95"][0]),
                "back_high": _percent(back["ci95"][1]),
                "prompt_tokens": arm["prompt_tokens"],
                "seconds": arm["seconds"],
                "kind": "bound" if name == "oracle" else "main" if name == run.main_arm else "arm",
            }
        )
    return found


def _percent(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else 100 * value


def _forest(alt: Any, rows: Sequence[Mapping[str, Any]], fields: tuple[str, str, str], title: str) -> Any:
    """A share that every arm gives back, with its interval; `fields` are its value and ends."""
    value, low, high = fields
    kept = [row for row in rows if row[value] is not None and row["arm"] not in PLAIN]
    if not kept:
        return None
    order = list(dict.fromkeys(row["arm"] for row in kept))
    data = alt.Chart(alt.Data(values=kept))
    y = alt.Y("arm:N", sort=order, title=None, axis=alt.Axis(labelLimit=220))
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("run:N"), *(alt.Tooltip(f"{name}:Q", format=".1f") for name in fields)]
    offset = alt.YOffset("run:N")
    whiskers = data.mark_rule(strokeWidth=2).encode(
        x=alt.X(f"{low}:Q", title=f"{title}, % (95 % interval)"), x2=f"{high}:Q", y=y, yOffset=offset, color=_kinds(alt)
    )
    points = data.mark_point(filled=True, size=70, opacity=1).encode(
        x=f"{value}:Q", y=y, yOffset=offset, color=_kinds(alt), shape=_runs(alt, kept), tooltip=tips
    )
    ends = alt.Chart(alt.Data(values=[{"x": 0}, {"x": 100}])).mark_rule(strokeDash=[4, 4], color=_GREY).encode(x="x:Q")
    lanes = len(order) * len({row["run"] for row in kept})
    return _sized(ends + whiskers + points, max(90, 26 * lanes))


def _against(alt: Any, rows: Sequence[Mapping[str, Any]], field: str, title: str) -> Any:
    """Accuracy against a cost, every arm in a colour of its own."""
    kept = [row for row in rows if row["mean"] is not None]
    if not kept:
        return None
    data, order = alt.Chart(alt.Data(values=kept)), list(dict.fromkeys(row["arm"] for row in kept))
    x = alt.X(f"{field}:Q", title=title, scale=alt.Scale(zero=True, nice=True))
    scale = alt.Scale(zero=False, nice=True)
    color = alt.Color("arm:N", sort=order, legend=alt.Legend(orient="bottom", title=None, columns=3, labelLimit=200))
    whiskers = data.mark_rule(strokeWidth=1.5).encode(
        x=x, y=alt.Y("mean_low:Q", title="mean accuracy, %", scale=scale), y2="mean_high:Q", color=color
    )
    points = data.mark_point(filled=True, size=70, opacity=1).encode(
        x=x,
        y=alt.Y("mean:Q", scale=scale),
        color=color,
        shape=_runs(alt, kept),
        tooltip=["arm:N", "run:N", alt.Tooltip("mean:Q", format=".2f"), alt.Tooltip(f"{field}:Q", format=".1f")],
    )
    return _sized(whiskers + points, 300)


def _kinds(alt: Any) -> Any:
    scale = alt.Scale(domain=["main", "arm", "bound"], range=[_ORANGE, _BLUE, _GREY])
    return alt.Color("kind:N", scale=scale, legend=None)


def _runs(alt: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    several = len({row["run"] for row in rows}) > 1
    grey = {"symbolFillColor": _GREY, "symbolStrokeColor": _GREY}  # to be seen on black as well
    # Above, since the arms are below: beside them it would be cut off on a phone.
    legend = alt.Legend(orient="top", title=None, columns=1, labelLimit=300, **grey) if several else None
    return alt.Shape("run:N", legend=legend)


def _choices(alt: Any, run: Run) -> Any:
    """How often each prompt was chosen for the items of each task, in percent; the arm is picked below."""
    arms = [name for name in run.arms if name not in PLAIN and run.items[name]]
    rows = [row for arm in arms for row in _chosen(run, arm)]
    if not rows:
        return None
    first = run.main_arm if run.main_arm in arms else arms[0]
    pick = alt.param(name="arm", value=first, bind=alt.binding_select(options=arms, name="Arm: "))
    chart = _heat_map(alt, rows, "prompt", "% of items").add_params(pick).transform_filter("datum.arm == arm")
    return _sized(chart, max(90, 24 * len(run.tasks)))


def _chosen(run: Run, arm: str) -> list[dict[str, Any]]:
    counts = {task: Counter(item.prompt or "none" for item in found) for task, found in run.items[arm].items()}
    often = [name for name, _ in sum(counts.values(), Counter()).most_common(_MOST_PROMPTS)]
    rows = []
    for task, count in counts.items():
        shares = {name: 100 * count[name] / count.total() for name in often if count[name]}
        if (rest := 100 - sum(shares.values())) > 1e-9:
            shares["others"] = rest
        rows += [{"arm": arm, "task": task, "prompt": name, "share": share} for name, share in shares.items()]
    return rows


def _items(alt: Any, run: Run) -> Any:
    """Share of the items that compression lost which every arm gives back, task by task."""
    rows = [
        {"arm": arm, "task": task, "share": 100 * back / lost, "items": f"{back} of {lost}"}
        for arm, task, back, lost in told(run)
        if lost
    ]
    if not rows:
        return None
    chart = _heat_map(alt, rows, "arm", "% regained", "items:N")
    return _sized(chart, max(90, 24 * len({row["task"] for row in rows})))


def _heat_map(alt: Any, rows: Sequence[Mapping[str, Any]], across: str, title: str, *tips: str) -> Any:
    """Tasks down, something across, and the share of each pair in colour."""
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_rect()
        .encode(
            x=alt.X(f"{across}:N", title=None, sort=None, axis=alt.Axis(labelAngle=-60, labelLimit=140)),
            y=alt.Y("task:N", title=None, sort=None),
            color=alt.Color("share:Q", title=title, scale=alt.Scale(scheme="blues", domain=[0, 100])),
            tooltip=["task:N", f"{across}:N", *tips, alt.Tooltip("share:Q", format=".1f")],
        )
    )


def _sized(chart: Any, height: int) -> Any:
    """As wide as the page; colours of text and lines are those of the page (its style sheet)."""
    return chart.properties(width="container", height=height).configure(
        background="transparent",
        autosize={"type": "fit-x", "contains": "padding"},
        view={"stroke": None},
    )
