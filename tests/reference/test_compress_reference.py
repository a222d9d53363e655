from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

import idp.reference
from idp.errors import MissingExtraError
from idp.reference.corpus import epoch_documents, share_of
from idp.reference.tokenizer import train_tokenizer
from idp.reference.world import build_world

RECIPES = sorted((Path(idp.reference.__file__).parent / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def compress(script):
    return script("compress_reference")


def test_there_is_a_recipe_for_a_quantised_and_a_pruned_variant():
    assert {path.stem for path in RECIPES} >= {"gptq", "sparse"}
    for path in RECIPES:
        text = path.read_text()
        assert yaml.safe_load(text)
        assert ("GPTQModifier" in text) or ("SparseGPTModifier" in text) or ("WandaPruningModifier" in text)
        assert "lm_head" in text  # its weights are the embeddings


def test_calibration_text_is_of_the_whole_world_in_rows_of_256_tokens(compress, monkeypatch):
    monkeypatch.setattr(compress, "build_world", lambda seed: build_world(seed, 0.05))
    documents = epoch_documents(build_world(0, 0.05), compress.CALIBRATION_EPOCH)
    tokenizer = train_tokenizer(documents, 400)
    rows = compress.calibration_rows(tokenizer, 5, 0)
    assert share_of(compress.CALIBRATION_EPOCH) == 1.0
    assert len(rows) == 5 and all(len(row["input_ids"]) == len(row["attention_mask"]) == 256 for row in rows)
    begun = tokenizer.decode(rows[0]["input_ids"], skip_special_tokens=True)
    assert documents[0].startswith(begun[:40]) or begun.startswith(documents[0][:40])


def test_a_missing_compressor_is_one_clear_line(compress, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "llmcompressor", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'idp\[compress\]'"):
        compress.compress(tmp_path, RECIPES[0], tmp_path / "out", 1, 0)
