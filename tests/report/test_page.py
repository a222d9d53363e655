"""The page is one file, whatever texts it shows."""

from __future__ import annotations

import re

import pytest
from made_runs import choice_row

from idp.errors import MissingExtraError, TaskError
from idp.report.charts import charts
from idp.report.content import report_of
from idp.report.page import to_html
from idp.report.run import read_run
from idp.report.write import write_report

EVIL = "</script><script>window.evil = 1</script><img src=x onerror=evil()> {{ 1 + 1 }}"


def without_scripts(html):
    return re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)


def test_a_page_needs_nothing_else(run):
    html = to_html(report_of([read_run(run(text=True))]))
    assert len(html.encode()) < 2_000_000
    markup = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert (
        not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", markup) and "@import" not in markup and "url(" not in markup
    )
    for words in ("Items lost and regained", "Pairs of arms", "Repeat it", "45 % [", "Question 20 of easy"):
        assert words in markup


def test_texts_are_shown_and_not_run(run, monkeypatch):
    import made_runs

    def row(task, number, right, prompt):
        found = choice_row(task, number, right, prompt)
        return {**found, "arguments": [[EVIL, option] for option in (" a", " b", " c")], "idp_prompt": prompt and EVIL}

    monkeypatch.setattr(made_runs, "choice_row", row)
    html = to_html(report_of([read_run(run())]))
    assert "<script>window.evil" not in html and "<img" not in without_scripts(html)
    assert "&lt;/script&gt;&lt;script&gt;window.evil = 1" in html and "{{ 1 + 1 }}" in html
    assert html.count("</script>") == 2


def test_charts_are_those_that_can_be_drawn(run, right):
    whole = charts({"tiny": read_run(run())})
    assert set(whole) == {"gap", "tokens", "seconds", "choices", "items"}
    without = charts({"tiny": read_run(run("bare", {name: right[name] for name in ("compressed", "router")}))})
    assert set(without) == {"tokens", "seconds", "choices"}
    several = charts({name: read_run(run(name)) for name in ("a", "b")})
    assert set(several) == {"gap", "tokens", "seconds"}


def test_the_forest_holds_the_numbers_of_the_table(run):
    found = read_run(run())
    rows = charts({"tiny": found})["gap"]["layer"][1]["data"]["values"]
    router = next(row for row in rows if row["arm"] == "router")
    stored = found.idp["gap_recovered"]["router"]
    assert [router["gap"], router["low"], router["high"]] == pytest.approx(
        [100 * x for x in (stored["value"], *stored["ci95"])]
    )


def test_choices_add_up_for_every_task(run):
    rows = charts({"tiny": read_run(run())})["choices"]["data"]["values"]
    for task in ("easy", "hard"):
        shares = [row["share"] for row in rows if row["task"] == task and row["arm"] == "router"]
        assert sum(shares) == pytest.approx(100) and len(shares) == 2


def test_files_are_written(run, tmp_path):
    report = write_report([run("a"), run("b", seed=1)], tmp_path / "deep" / "out")
    assert report.title == "tiny"
    assert (tmp_path / "deep" / "out" / "report.html").exists() and (tmp_path / "deep" / "out" / "report.md").exists()


def test_nothing_cannot_be_reported(tmp_path):
    with pytest.raises(TaskError, match="no evaluation was named"):
        write_report([], tmp_path)


def test_without_what_draws_charts_the_pip_line_is_told(run, tmp_path, without):
    folder = run()
    without("altair")
    with pytest.raises(MissingExtraError, match=r"idp\[report\]"):
        write_report([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()
