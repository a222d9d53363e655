from __future__ import annotations

import json
import lzma

import pytest
import torch
from torch.nn.functional import cross_entropy

from idp.errors import TaskError
from idp.run.store import PrefixStore


@pytest.fixture(scope="module")
def study(script):
    return script("study_harm")


def test_texts_are_read_by_name_compressed_or_not(study, tmp_path):
    (tmp_path / "a.txt").write_text("Größe", encoding="utf-8")
    with lzma.open(tmp_path / "b.xz", "wt", encoding="utf-8") as file:
        file.write("Größe")
    assert [study.named_text(f"x={tmp_path / name}") for name in ("a.txt", "b.xz")] == [("x", "Größe")] * 2


@pytest.mark.parametrize("argument", ["x", "=a", "x=", "x=/nowhere/at/all"])
def test_what_is_no_text_is_refused(study, argument):
    with pytest.raises(TaskError, match="NAME=FILE"):
        study.named_text(argument)


def test_pieces_are_spread_and_need_room(study, tiny_lm):
    lm = tiny_lm()
    found = study.pieces(lm, "".join(chr(97 + place // 260) * 260 for place in range(0, 260 * 4, 260)), 4)
    assert len({request.context for request in found}) == 4
    assert lm.tokenizer.decode(found[1].continuations[0]) == "b" * study.FOLLOWS
    with pytest.raises(TaskError, match="no 5 pieces"):
        study.pieces(lm, "a" * 1299, 5)


def test_surprise_is_that_of_plain_logits(study, tiny_lm, mixed_bank, plain_logits):
    lm = tiny_lm()
    bank, requests = mixed_bank(lm), study.pieces(lm, "The river runs past the old mill. " * 40, 3)
    found = study.surprise(PrefixStore(lm, bank), requests, [0, 1, -1])
    for value, request, prompt in zip(found, requests, [bank[0], bank[1], None], strict=True):
        ids, follows = [*request.context, *request.continuations[0]], torch.tensor(request.continuations[0])
        logits = plain_logits(lm, prompt, ids)[len(request.context) - 1 : -1]  # (n, V)
        torch.testing.assert_close(float(value), float(cross_entropy(logits, follows)), atol=1e-4, rtol=0)


def test_harm_is_measured_and_printed(study, tmp_path, capsys):
    (tmp_path / "code.py").write_text("def add(one, other):\n    return one + other\n" * 40)
    rows = tmp_path / "rows.json"
    study.main([f"code={tmp_path / 'code.py'}"], count=4, selectors="none,static", json_file=rows)
    found = json.loads(rows.read_text())
    assert [(row["text"], row["selector"]) for row in found[:2]] == [("code", "none"), ("code", "static")]
    assert found[0]["difference"] == 0.0 and found[0]["no_prompt"] == 1.0
    assert found[1]["difference"] != 0.0 and found[1]["no_prompt"] == 0.0
    assert "given no prompt" in " ".join(capsys.readouterr().out.split())
