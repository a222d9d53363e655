"""A report as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import json
import re
from importlib.resources import files

from jinja2 import Environment

from idp.report.charts import bundle, charts
from idp.report.content import Report

__all__ = ["to_html"]

_CAPTIONS = {
    "gap": "What every arm gives back of what compression cost, with 95 % intervals.",
    "divergence": "What every arm gives back of the divergence from the dense model, with 95 % intervals.",
    "tokens": "Mean accuracy against prompt tokens.",
    "seconds": "Mean accuracy against the seconds of all items, selection included.",
    "choices": "Which prompt was chosen how often, task by task.",
    "items": "Items that compression lost: how many of them every arm has right again.",
}


def to_html(report: Report) -> str:
    """Return the report as HTML, about 1 MB with the scripts that draw its charts.

    Raises:
        MissingExtraError: altair or vl-convert is not installed.
    """
    drawn = charts(report.runs)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_resource("page.html.j2")).render(
        report=report,
        style=_resource("page.css"),
        script=re.sub("</(script)", r"<\\/\1", bundle(), flags=re.IGNORECASE),  # nothing within it may end it
        charts=drawn,
        captions=_CAPTIONS,
        specifications=json.dumps(drawn, allow_nan=False).replace("<", "\\u003c"),  # as in any text of an item
    )


def _resource(name: str) -> str:
    return (files("idp.report") / name).read_text(encoding="utf-8")
