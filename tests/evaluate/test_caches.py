"""lm-eval's own caches with the model type `idp`: the one of answers (`use_cache`) and the one of requests."""

from __future__ import annotations

from pathlib import Path

import lm_eval
import lm_eval.caching.cache as request_cache
import pytest
from lm_eval.api.model import CachingLM
from lm_eval.api.task import ConfigurableTask

import idp.evaluate.lm as lm_module
from idp.bank.bank import PromptBank
from idp.dynamic.wrap import prepare
from idp.errors import IdpError
from idp.evaluate import IdpLM
from idp.evaluate.oracle import FixedSelector
from idp.evaluate.ownership import describe
from idp.resources import eval_dir

TASKS = ["atlas_easy", "atlas_trivia", "atlas_last_word", "atlas_text"]
"""Options of a question, generation, one continuation, whole texts."""


@pytest.fixture(scope="module")
def manager():
    """lm-eval's index of the embedded tasks."""
    return lm_eval.tasks.TaskManager(include_path=str(eval_dir() / "tasks"), include_defaults=False)


@pytest.fixture
def run(compressed, bank_folder, manager):
    """Evaluate the model type `idp`, or another, as lm-eval's users do; returns results and samples."""

    def simple_evaluate(selector="random", model="idp", arguments="", tasks=tuple(TASKS), **options):
        own = f",bank={bank_folder},selector={selector}" if model == "idp" else ""
        common = {"limit": 3, "bootstrap_iters": 0, "device": "cpu", "batch_size": 2, "task_manager": manager}
        output = lm_eval.simple_evaluate(
            model=model,
            model_args=f"pretrained={compressed},dtype=float32{own}{arguments}",
            tasks=list(tasks),
            **(common | options),
        )
        return output["results"], output["samples"]

    return simple_evaluate


@pytest.fixture
def nothing_is_computed(monkeypatch):
    """Fail from now on where the model would be run."""

    def forbid():
        monkeypatch.setattr(lm_module, "score", lambda *a, **k: pytest.fail("scored again"))
        monkeypatch.setattr(IdpLM, "_model_generate", lambda *a, **k: pytest.fail("generated again"))

    return forbid


@pytest.fixture
def requests_lie_in(tmp_path, monkeypatch):
    """lm-eval reads LM_HARNESS_CACHE_PATH when it is imported, so here its folder is moved by hand."""
    folder = tmp_path / "requests"
    monkeypatch.setattr(request_cache, "PATH", str(folder))
    return folder


def test_a_second_run_is_answered_from_the_response_cache(run, tmp_path, nothing_is_computed):
    plain = run()
    path = str(tmp_path / "answers")
    first = run(use_cache=path)
    assert Path(f"{path}_rank0.db").exists()
    nothing_is_computed()
    assert run(use_cache=path) == first == plain


def test_what_the_response_cache_lacks_is_computed(run, tmp_path):
    path = str(tmp_path / "answers")
    run(use_cache=path, limit=2)
    results, samples = run(use_cache=path, limit=4)
    expected_results, expected = run(limit=4)
    assert results.keys() == expected_results.keys() == set(TASKS)
    for task in TASKS:
        for row, other in zip(samples[task], expected[task], strict=True):
            assert row["arguments"] == other["arguments"]
            for got, wanted in zip(row["filtered_resps"], other["filtered_resps"], strict=True):
                assert got == (pytest.approx(wanted, abs=1e-4) if task != "atlas_trivia" else wanted)


@pytest.mark.parametrize(
    "change",
    [
        {"selector": "none"},
        {"selector": "attention"},
        {"seed": 1},
        {"max_length": 900},
        {"add_bos_token": False},
        {"prefix_token_id": 5},
        {"think_end_token": 7},
    ],
)
def test_a_response_cache_belongs_to_one_arm(lm, bank, tmp_path, change):
    arm = {"pretrained": lm, "bank": bank, "selector": "random"}
    path = str(tmp_path / "answers.db")
    for _ in range(2):  # again after the refusal, which has changed nothing
        CachingLM(IdpLM(**arm), path).dbdict.close()
        with pytest.raises(IdpError, match="answers.db are those of another model, bank, selector or model argument"):
            CachingLM(IdpLM(**arm | change), path)


def test_another_selector_under_the_same_path_is_refused_before_anything_is_answered(run, tmp_path):
    path = str(tmp_path / "answers")
    run(use_cache=path, tasks=("atlas_easy",))
    with pytest.raises(IdpError, match="give use_cache another path"):
        run(use_cache=path, tasks=("atlas_easy",), selector="none")
    run(use_cache=f"{path}-hf", tasks=("atlas_easy",), model="hf")
    with pytest.raises(IdpError, match="give use_cache another path"):
        run(use_cache=f"{path}-hf", tasks=("atlas_easy",))


def test_options_that_are_in_no_state_tell_arms_apart_too(lm, bank):
    owners = [describe(prepare(lm, bank, FixedSelector(index).fit(bank, lm))) for index in (0, 1, 0)]
    assert owners[0] == owners[2] != owners[1]


def test_other_prompts_and_other_models_are_other_arms(lm, bank, tiny_lm):
    shorter = PromptBank(bank.prompts[:2], lm.fingerprint)
    assert describe(prepare(lm, shorter, "random")) != describe(prepare(lm, bank, "random"))
    assert describe(prepare(lm, None, "none")) != describe(prepare(tiny_lm(seed=1), None, "none"))


def test_cached_requests_are_answered_as_new_ones_and_serve_every_arm(run, requests_lie_in, monkeypatch):
    plain, bare = run(), run(selector="none")
    assert run(cache_requests=True) == plain
    assert len(list(requests_lie_in.iterdir())) == len(TASKS)
    monkeypatch.setattr(ConfigurableTask, "construct_requests", lambda *a, **k: pytest.fail("built again"))
    assert run(cache_requests=True) == plain
    assert run(selector="none", cache_requests=True) == bare != plain


def test_both_caches_together(run, requests_lie_in, tmp_path, nothing_is_computed):
    both = {"use_cache": str(tmp_path / "answers"), "cache_requests": True, "tasks": ("atlas_trivia",)}
    first = run(**both)
    nothing_is_computed()
    assert run(**both) == first
