from __future__ import annotations

import copy
import json

import pytest

from idp.errors import TaskError
from idp.evaluate.damage.material import Material, material
from idp.evaluate.damage.measure import damage
from idp.model.loaded import LanguageModel


@pytest.fixture
def pair(tiny_lm, changed):
    return tiny_lm(), changed(tiny_lm(), 0.2, 1)


def test_everything_of_two_models(pair, text, quiz, watcher):
    seen = watcher()
    lm = pair[0]
    found = damage(*pair, material(lm.tokenizer, text, quiz), rows=3, row_tokens=32, observer=seen)
    assert [stage[1:] for stage in seen.stages] == [[2, 2], [3, 3], [6, 6]]
    assert (found.dense, found.compressed, found.dtype) == ("tiny-llama", "changed", "float32")
    assert found.kinds == [*(f"{name}_proj" for name in "qkvo"), "gate_proj", "up_proj", "down_proj"]
    assert found.weight_error(0) == 0
    assert found.weight_error(1) == pytest.approx(0.2, rel=1e-5)
    assert found.weight_error(1, "q_proj") == pytest.approx(0.2, rel=1e-5)
    assert found.weight_error() == pytest.approx(0.2 / 2**0.5, rel=0.2)  # half of the weights
    assert found.weight_error(2) is None
    assert found.reading.path[0] == 0 < found.reading.path[1]
    assert [row.questions for row in found.knowledge] == [3, 2, 1]
    assert not found.is_none


def test_a_model_and_itself(tiny_lm, text, quiz):
    lm = tiny_lm()
    found = damage(lm, lm, material(lm.tokenizer, text, quiz), rows=2)
    assert found.is_none
    told = found.to_dict()
    assert told["nothing_differs"] is True
    assert told["kl_nats"] == {"value": 0.0, "ci95": [0.0, 0.0]}
    assert {layer["output_error"] for layer in told["layers"]} == {0.0}
    assert {layer["own_error"] for layer in told["layers"]} == {0.0}
    assert {error for layer in told["layers"] for error in layer["matrices"].values()} == {0.0}


def test_json_has_no_nan(pair, text):
    found = damage(*pair, material(pair[0].tokenizer, text), rows=1, own=False)
    told = found.to_dict()
    assert told["kl_nats"]["ci95"] == [None, None]
    assert told["layers"][0]["own_error"] is None
    assert told["knowledge"] == []
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_rows_are_256_tokens_or_what_the_models_can_read(tiny_lm, text):
    for context, tokens in ((64, 64), (512, 256)):
        lm = tiny_lm(max_position_embeddings=context)
        assert damage(lm, lm, material(lm.tokenizer, text), rows=1, own=False).reading.row_tokens == tokens


def test_the_shorter_context_counts(tiny_lm, text):
    lm = tiny_lm()
    model = copy.deepcopy(lm.model)
    model.config.max_position_embeddings = 48
    short = LanguageModel(model, lm.tokenizer, "short")
    for pair in ((lm, short), (short, lm)):
        given = material(lm.tokenizer, text)
        assert damage(*pair, given, rows=1, own=False).reading.row_tokens == 48
        with pytest.raises(TaskError, match="short can be given 2 to 48"):
            damage(*pair, given, rows=1, row_tokens=49)


def test_the_same_seed_gives_the_same(pair, text, quiz):
    told = [
        damage(*pair, material(pair[0].tokenizer, text, quiz), rows=20, row_tokens=32, seed=seed).to_dict()
        for seed in (1, 1, 2)
    ]
    assert told[0] == told[1]
    assert told[0]["kl_nats"]["ci95"] != told[2]["kl_nats"]["ci95"]
    assert told[0]["kl_nats"]["value"] == told[2]["kl_nats"]["value"]


def test_other_models_need_a_text(tiny_lm):
    with pytest.raises(TaskError, match="--text") as refused:
        damage(tiny_lm(), tiny_lm())
    assert "\n" not in str(refused.value)


def test_other_models_are_asked_nothing_without_questions(tiny_lm, text):
    given = material(tiny_lm().tokenizer, text)
    assert given.probes(tiny_lm(), 0) == []
    assert "do not know the reference world" in given.asked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row_tokens": 257}, "rows of 257 tokens are not possible"),
        ({"row_tokens": 1}, "rows of 1 tokens are not possible"),
        ({"rows": 0}, "cannot make 0 rows"),
        ({"given": Material("nothing", ["\n"], "")}, "less than two tokens"),
    ],
)
def test_texts_that_cannot_be_read(tiny_lm, text, changes, message):
    given = {"given": material(tiny_lm().tokenizer, text), **changes}
    with pytest.raises(TaskError, match=message):
        damage(tiny_lm(), tiny_lm(), **given)


def test_files_that_are_not_there(tiny_lm, text):
    with pytest.raises(TaskError, match=r"nowhere\.txt"):
        material(tiny_lm().tokenizer, "nowhere.txt")
    with pytest.raises(TaskError, match=r"nowhere\.jsonl"):
        material(tiny_lm().tokenizer, text, "nowhere.jsonl")
