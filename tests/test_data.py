"""The data that the repository carries: is it what the generators make of it today?"""

from __future__ import annotations

import gzip
import json

import pytest
import yaml
from lm_eval.tasks import TaskManager

from idp.bank.bank import PromptBank
from idp.evaluate.tasks import quiet
from idp.model.aliases import resolve
from idp.model.load import load
from idp.reference.exams import EXAMS
from idp.resources import eval_dir
from idp.tune.fitting import FITTED

ATLAS = eval_dir() / "tasks" / "atlas"
FILES = sorted(path.name for path in (ATLAS / "data").glob("*.jsonl.gz"))


@pytest.fixture(scope="module")
def written(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas")
    script("write_atlas").main(out=folder, seed=0, test=500, train=250)
    return folder


def lines(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def test_every_task_has_its_files():
    wanted = {f"{task}_{split}.jsonl.gz" for task in EXAMS for split in ("train", "test")} - {"control_train.jsonl.gz"}
    assert set(FILES) == wanted


@pytest.mark.parametrize("name", FILES)
def test_a_data_file_holds_what_the_generator_writes(written, name):
    """Compared as bytes before compression, which may differ between versions of zlib."""
    assert gzip.decompress((ATLAS / "data" / name).read_bytes()) == gzip.decompress((written / name).read_bytes())


def test_the_generator_writes_nothing_else(written):
    assert sorted(path.name for path in written.iterdir()) == FILES


def test_compressed_files_hold_no_time_stamp(script):
    packed = script("write_atlas").packed([{"question": "Où?"}])
    assert packed == script("write_atlas").packed([{"question": "Où?"}])
    assert packed[4:8] == b"\0\0\0\0"
    assert json.loads(gzip.decompress(packed)) == {"question": "Où?"}


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("_test.jsonl.gz")])
def test_a_test_split_has_about_500_different_items(name):
    items = [json.dumps(item) for item in lines(ATLAS / "data" / name)]
    fewer = {"text": 100, "pair": 328}  # pages are long; of goals that no text shows there are no more
    assert len(items) == fewer.get(name.partition("_test")[0], 500)
    assert len(set(items)) == len(items)


def test_no_question_is_in_both_splits():
    for task in EXAMS:
        train = ATLAS / "data" / f"{task}_train.jsonl.gz"
        keys = ("question", "goal", "context", "text")
        splits = [lines(path) for path in (train, ATLAS / "data" / f"{task}_test.jsonl.gz") if path.exists()]
        asked = [{item[key] for item in split for key in keys[:2] if key in item} for split in splits]
        assert len(asked) < 2 or not asked[0] & asked[1], task


def test_the_data_are_small():
    assert sum((ATLAS / "data" / name).stat().st_size for name in FILES) < 1_000_000


def test_each_task_is_of_the_form_that_the_paper_has():
    forms = {
        task: yaml.safe_load((ATLAS / f"atlas_{task}.yaml").read_text().replace("!function", ""))["output_type"]
        for task in EXAMS
    }
    assert forms == {
        **dict.fromkeys(("easy", "hard", "support", "short", "pair", "endings", "control"), "multiple_choice"),
        "trivia": "generate_until",
        "last_word": "loglikelihood",
        "text": "loglikelihood_rolling",
    }


def test_plain_lm_eval_finds_and_loads_the_tasks_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with quiet():
        manager = TaskManager(include_path=str(eval_dir() / "tasks"), include_defaults=False)
        names = [f"atlas_{task}" for task in EXAMS]
        assert set(manager.all_tasks) >= {*names, "atlas"}
        tasks = manager.load(names)["tasks"]
    for name in names:
        assert tasks[name].has_training_docs() == (name != "atlas_control")
        assert len(tasks[name].eval_docs) >= 100


def test_suites_list_every_atlas_task_and_only_known_settings():
    suites = yaml.safe_load((eval_dir() / "suites.yaml").read_text())
    assert set(suites) == {"suites", "metrics", "controls"}
    assert suites["suites"]["atlas"]["tasks"] == [f"atlas_{task}" for task in EXAMS]
    assert len(suites["suites"]["paper"]["tasks"]) == 9
    assert all(suite["about"] for suite in suites["suites"].values())
    assert suites["controls"] == ["atlas_control"]


@pytest.mark.parametrize("name", ["reference-sparse", "reference-gptq"])
def test_the_tuned_banks_fit_the_models_they_come_with(name: str) -> None:
    spec = resolve(name)
    assert spec.bank is not None
    bank = PromptBank.load(spec.bank)
    bank.require(load(spec, device="cpu", dtype="float32").fingerprint)
    assert bank.names[0] == "static" and len(bank) > 2
    assert all(prompt.embedding is not None and len(prompt.embedding) == 16 for prompt in bank)
    assert set(bank.selectors) == set(FITTED)
