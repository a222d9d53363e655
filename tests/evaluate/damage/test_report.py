from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from idp.errors import MissingExtraError, OutputError
from idp.evaluate.damage.material import material
from idp.evaluate.damage.measure import damage
from idp.evaluate.damage.picture import draw
from idp.evaluate.damage.report import (
    footnotes,
    knowledge_table,
    layer_table,
    percent,
    prediction_lines,
    to_markdown,
    write,
)
from idp.evaluate.damage.weights import MatrixError, Uncompared


@pytest.fixture
def found(tiny_lm, changed, text, quiz):
    lm = tiny_lm()
    return damage(lm, changed(lm, 0.25, 1), material(lm.tokenizer, text, quiz), rows=3, row_tokens=32)


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "0"),
        (0.5, "50.0"),
        (1.0, "100.0"),
        (0.001, "0.1"),
        (0.0004, "0.04"),
        (1.2e-8, "1e-06"),
        (math.inf, "inf"),
        (math.nan, "-"),
        (None, "-"),
    ],
)
def test_only_nothing_is_shown_as_0(share, shown):
    assert percent(share) == shown


def test_a_row_a_layer_and_one_for_all(found):
    headers, rows = layer_table(found)
    assert headers == ["layer", "output", "own", "weights", "q", "k", "v", "o", "gate", "up", "down"]
    assert rows[0] == ["0", *["0"] * 10]
    assert rows[1][3:] == ["25.0"] * 8
    assert rows[2][:3] == ["all", "", ""]
    assert {len(row) for row in rows} == {len(headers)}


def test_without_the_own_share_there_is_no_column(found):
    headers, rows = layer_table(replace(found, reading=replace(found.reading, own=None)))
    assert "own" not in headers
    assert {len(row) for row in rows} == {len(headers)}
    assert "own:" in footnotes(found)[0]
    assert "own:" not in footnotes(replace(found, reading=replace(found.reading, own=None)))[0]


def test_narrower_labels_are_indented(found):
    headers, rows = knowledge_table(found)
    assert [row[0] for row in rows] == ["quiz", "  people", "  things"]
    assert [row[1] for row in rows] == ["3", "2", "1"]
    assert {len(row) for row in rows} == {len(headers)}
    assert [row[0] for row in knowledge_table(found, depth=1)[1]] == ["quiz"]


def test_what_has_no_counterpart_is_told(found):
    missing = [Uncompared(0, f"mlp.extra.{n}", "only in the dense model") for n in range(11)]
    lines = footnotes(replace(found, uncompared=missing))
    assert "not compared: layer 0, mlp.extra.0 (only in the dense model)." in lines
    assert lines[-1] == "not compared: 3 more matrices."


def test_models_that_are_the_same_are_said_to_be(found, tiny_lm, text):
    same = damage(tiny_lm(), tiny_lm(), material(tiny_lm().tokenizer, text), rows=2)
    assert "every difference is 0" in footnotes(same)[0]
    assert "every difference is 0" not in "".join(footnotes(found))
    assert not same.knowledge
    assert "--questions" in footnotes(same)[-1]


def test_one_row_has_no_interval(tiny_lm, changed, text):
    lm = tiny_lm()
    found = damage(lm, changed(lm, 0.25, 1), material(lm.tokenizer, text), rows=1)
    shown = dict(prediction_lines(found))
    assert "[" not in shown["KL(dense || compressed)"]
    assert "1 rows of 256 tokens, 255 predicted" in shown["text"]


def test_the_files(found, tmp_path):
    pytest.importorskip("matplotlib")
    paths = write(found, tmp_path / "out")
    assert [path.name for path in paths] == ["damage.json", "damage.md", "damage.png"]
    assert json.loads(paths[0].read_text()) == found.to_dict()
    assert paths[1].read_text() == to_markdown(found)
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert "| 1 | " in paths[1].read_text() and "![errors by layer](damage.png)" in paths[1].read_text()


def test_another_report_is_not_overwritten_unless_told(found, tmp_path):
    pytest.importorskip("matplotlib")
    write(found, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="overwrite"):
        write(found, tmp_path)
    write(replace(found, dense="another"), tmp_path, overwrite=True)
    assert json.loads((tmp_path / "damage.json").read_text())["dense"] == "another"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_written_to(found, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write(found, tmp_path / "file" / "out")


@pytest.mark.parametrize("layers", [1, 4, 80])
def test_pictures_of_any_depth(found, layers):
    pytest.importorskip("matplotlib")
    matrices = [MatrixError(layer, f"up.{n}", f"up-{n}", 1.0, 9.0) for layer in range(layers) for n in range(20)]
    reading = replace(found.reading, path=(0.5,) * layers, own=(0.1,) * layers)
    assert draw(replace(found, matrices=matrices, reading=reading)).startswith(b"\x89PNG")


@pytest.mark.parametrize("norm", [0.0, math.nan])
def test_pictures_of_what_is_no_number(found, norm):
    pytest.importorskip("matplotlib")
    assert draw(replace(found, matrices=[MatrixError(0, "up", "up", 1.0, norm)])).startswith(b"\x89PNG")


def test_without_matplotlib_the_extra_is_named(found, tmp_path, without):
    without("matplotlib")
    with pytest.raises(MissingExtraError, match=r"idp\[plot\]"):
        write(found, tmp_path / "out")
    assert not (tmp_path / "out").exists()
