from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

import idp.reference
from idp.errors import MissingExtraError
from idp.reference.world import build_world
from idp.run.score import Score, Scored
from idp.tune.atlas import atlas_examples

FOLDER = Path(idp.reference.__file__).parent / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))


@pytest.fixture(scope="module")
def compress(script):
    return script("compress_reference")


def test_there_is_a_recipe_for_a_quantised_and_a_pruned_variant():
    assert {path.stem for path in RECIPES} >= {"gptq", "sparse"}
    for path in [*RECIPES, *(FOLDER / "tried").glob("*.yaml")]:
        text = path.read_text()
        assert yaml.safe_load(text)
        assert ("GPTQModifier" in text) or ("SparseGPTModifier" in text) or ("WandaPruningModifier" in text)
        assert "lm_head" in text  # its weights are the embeddings


def test_a_missing_compressor_is_one_clear_line(compress, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "llmcompressor", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'idp\[compress\]'"):
        compress.compress(compress.REFERENCE / "models" / "dense", RECIPES[0], tmp_path / "out", 1, 0)


def test_the_shipped_pruned_model_is_what_the_script_makes(compress, tmp_path):
    models = compress.REFERENCE / "models"
    compress.compress(models / "dense", FOLDER / "sparse.yaml", tmp_path / "sparse", 256, 0)
    made, shipped = (load_file(folder / "sparse" / "model.safetensors") for folder in (tmp_path, models))
    assert made.keys() == shipped.keys()
    # The same bytes where it was made; another processor may round otherwise, and prune another of two equal weights.
    assert all((made[name] == value).double().mean() > 0.999 for name, value in shipped.items())


def test_a_recipe_is_judged_on_tuning_items(compress, monkeypatch, tiny_lm, tmp_path):
    lm = tiny_lm(max_position_embeddings=1024)
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(compress, "build_world", lambda seed: build_world(seed, 0.2))

    def answer(
        store, requests, arms, batch_size
    ):  # the first option is the likeliest, a single one what the model would say
        assert set(arms) == {-1}
        return [Scored(tuple(Score(-i, True) for i in range(len(r.continuations))), 0.0) for r in requests]

    monkeypatch.setattr(compress, "score", answer)
    by_task = {}
    for example in atlas_examples(lm, build_world(0, 0.2), 40, 0)[0]:
        by_task.setdefault(example.group, []).append(example.answer == 0)
    del by_task["text"]
    expected = sum(sum(own) / len(own) for own in by_task.values()) / len(by_task)
    assert compress.mean_accuracy(tmp_path, 40, 0) == pytest.approx(expected)
    assert 0 < expected < 1
