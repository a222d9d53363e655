from __future__ import annotations

import dataclasses
import json
from itertools import combinations

import lm_eval
import pytest
import yaml

import idp.evaluate.lm as lm_module
import idp.evaluate.selectors as selectors_module
from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.evaluate import IdpLM, Settings, evaluate, write_report
from idp.evaluate.arms import ARMS, DENSE_ARMS
from idp.evaluate.evaluation import DEFAULT_ARMS
from idp.evaluate.report import footnotes, table
from idp.resources import eval_dir

TASKS = ("atlas_easy", "atlas_trivia", "atlas_last_word", "atlas_text", "atlas_control")
LIMIT = 6
ROUTER = DEFAULT_ARMS[0]


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory, watcher):
    """One evaluation of all arms, with its files and what the observer saw."""
    folder = tmp_path_factory.mktemp("whole")
    watcher = watcher()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IDP_CACHE", str(folder / "cache"))
        evaluation = evaluate(dataclasses.replace(tiny, output_dir=folder / "out"), watcher)
    return evaluation, write_report(evaluation), watcher


@pytest.fixture
def results(whole):
    return json.loads(whole[1]["results"].read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_all_arms_run_on_the_same_items(whole):
    evaluation, _, _ = whole
    assert tuple(evaluation.arms) == ARMS
    for task in TASKS:
        hashes = {name: [row["doc_hash"] for row in arm.samples[task]] for name, arm in evaluation.arms.items()}
        assert len({tuple(own) for own in hashes.values()}) == 1
        assert len(hashes["dense"]) == LIMIT


def test_the_oracle_bounds_every_arm_of_the_compressed_model_item_by_item(whole):
    arms = whole[0].arms
    for name in set(ARMS) - {*DENSE_ARMS, "oracle"}:
        for task, values in arms[name].items.items():
            assert (arms["oracle"].items[task] >= values).all()


def test_compressed_and_dense_run_without_prompts_and_are_different_models(whole):
    arms = whole[0].arms
    assert arms["dense"].prompt_tokens == arms["compressed"].prompt_tokens == 0
    assert arms["dense"].values["atlas_text"] != arms["compressed"].values["atlas_text"]
    assert arms["random"].prompt_tokens > 0
    assert all(arm.seconds > 0 for arm in arms.values())


def test_static_takes_one_arm_for_all_inputs(whole):
    rows = [row["idp_prompt"] for own in whole[0].arms["static"].samples.values() for row in own]
    assert len(set(rows)) == 1


def test_the_results_have_lm_evals_own_keys_and_one_more(whole, results, compressed):
    manager = lm_eval.tasks.TaskManager(include_path=str(eval_dir() / "tasks"), include_defaults=False)
    plain = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={compressed},dtype=float32",
        tasks=list(TASKS),
        limit=2,
        bootstrap_iters=0,
        device="cpu",
        log_samples=False,
        task_manager=manager,
    )
    assert set(results) - {"idp"} <= set(plain) | {"torch_version"}
    for key in ("results", "configs", "versions", "n-shot", "higher_is_better", "n-samples"):
        assert set(results[key]) == set(plain[key]) == set(TASKS)
    for task in TASKS:
        assert set(results["results"][task]) == set(plain["results"][task])
        assert results["n-samples"][task]["effective"] == LIMIT
    assert {"config", "date", "lm_eval_version", "transformers_version"} <= set(results)
    assert set(results["config"]) <= set(plain["config"])


def test_the_key_idp_holds_what_was_agreed(whole, results):
    own = results["idp"]
    assert {"model", "bank", "seed", "arms", "gap", "gap_recovered", "paired"} <= set(own)
    assert set(own) <= {
        *("model", "bank", "seed", "arms", "gap", "gap_recovered", "paired"),
        # what else is needed to repeat and to read it
        *("schema", "version", "settings", "metrics", "filters", "in_mean", "controls", "chance", "groups", "items"),
        *("main_arm", "detectable_difference", "notes", "failed", "environment", "sets", "divergence"),
    }
    assert set(own["arms"]) == set(own["gap_recovered"]) == set(ARMS)
    for name, arm in own["arms"].items():
        assert {"mean", "tasks", "prompt_tokens", "seconds"} <= set(arm)
        assert set(arm["tasks"]) == set(TASKS)
        in_mean = [arm["tasks"][task] for task in ("atlas_easy", "atlas_trivia", "atlas_last_word")]
        assert arm["mean"] == pytest.approx(sum(in_mean) / 3)
        assert set(own["gap_recovered"][name]) == {"value", "ci95"}
        assert len(own["gap_recovered"][name]["ci95"]) == 2
    for pair in own["paired"]:
        assert set(pair) == {"a", "b", "difference", "ci95", "p", "gained", "lost", "mcnemar", "holm"}
        assert 0 < pair["p"] <= 1 and pair["mcnemar"] <= pair["holm"] <= 1
        items = LIMIT * len(own["in_mean"])
        assert 0 <= pair["gained"] + pair["lost"] <= items
        difference = own["arms"][pair["a"]]["mean"] - own["arms"][pair["b"]]["mean"]
        assert pair["difference"] == pytest.approx(difference)
        assert pair["ci95"][0] - 1e-9 <= pair["difference"] <= pair["ci95"][1] + 1e-9
    assert set(own["in_mean"]) == {"atlas_easy", "atlas_trivia", "atlas_last_word"}
    assert own["seed"] == 0 and own["settings"]["limit"] == LIMIT


def test_every_pair_of_arms_but_the_bound_is_compared_once(results):
    pairs = [(pair["a"], pair["b"]) for pair in results["idp"]["paired"]]
    assert {frozenset(pair) for pair in pairs} == {frozenset(pair) for pair in combinations(set(ARMS) - {"oracle"}, 2)}
    assert len(pairs) == len(set(pairs))
    assert {(ROUTER, "static"), (ROUTER, "compressed"), (ROUTER, "attention"), (ROUTER, "router")} <= set(pairs)


def test_samples_carry_the_choice_and_its_scores(whole):
    evaluation, files, _ = whole
    for arm in ARMS:
        names = [*(["static"] if arm == "dense-static" else evaluation.bank["prompts"]), None]
        for task in TASKS:
            lines = (files["samples"] / f"samples_{task}_{arm}.jsonl").read_text().splitlines()
            assert len(lines) == LIMIT
            for line in lines:
                row = json.loads(line)
                assert row["idp_prompt"] in names
                assert len(row["idp_scores"]) == (1 if arm in ("dense", "compressed") else len(names))
                assert {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "doc_hash"} <= set(row)
                if arm in ("router", "static", "random", "attention", "oracle"):
                    scores = [-1e300 if score is None else score for score in row["idp_scores"]]
                    assert scores[names.index(row["idp_prompt"])] == max(scores)


def test_the_results_say_how_to_get_them_again_from_lm_eval(settings, results, compressed, bank_folder):
    assert results["config"]["model_args"] == {
        "pretrained": compressed,
        "bank": bank_folder,
        "selector": "router:features=state",
    }
    args = {"bank": None, "arms": ("random",), "tasks": ("atlas_easy",), "limit": 2}
    random = json.loads(write_report(evaluate(settings(**args)))["results"].read_text())
    again = random["config"]["model_args"]
    assert again == {"pretrained": compressed, "bank": "text", "selector": "random"}
    assert IdpLM(**again, device="cpu", dtype="float32").prompted.bank.names == tuple(random["idp"]["bank"]["prompts"])
    bare = json.loads(write_report(evaluate(settings(**args | {"arms": ("compressed",)})))["results"].read_text())
    assert bare["config"]["model_args"] == {"pretrained": compressed, "bank": None, "selector": "none"}


def test_the_results_hold_every_setting_but_where_they_lie(results, tiny, compressed, dense):
    kept = results["idp"]["settings"]
    assert kept.keys() == {field.name for field in dataclasses.fields(tiny)} - {"output_dir"}
    assert (kept["model"], kept["dense"], kept["dtype"], kept["batch_size"]) == (compressed, dense, "float32", 8)


def test_the_results_name_their_samples(whole, results):
    named = [file for arm in results["idp"]["arms"].values() for file in arm["samples"].values()]
    assert sorted(named) == sorted(path.name for path in whole[1]["samples"].glob("samples_*"))


def test_every_file_is_named_and_the_report_can_be_read(whole):
    evaluation, files, _ = whole
    assert sorted(files) == ["report", "results", "samples"]
    report = files["report"].read_text()
    assert all(f"**{arm}**" in report for arm in ARMS)
    assert "oracle (bound)" in report
    assert "chance 25.0" in report and "lower is better" in report
    assert str(files["samples"].parent) not in report  # no local path
    headers, rows = table(evaluation)
    assert headers[:3] == ["arm", "mean", "gap recovered [95 %]"] and len(rows) == len(ARMS)
    assert all(len(row) == len(headers) for row in rows)
    assert [header for header in headers if header.endswith("*")] == ["text *", "control *"]
    told = [line for line in footnotes(evaluation) if "points between two arms" in line]
    assert len(told) == (evaluation.detectable is not None)  # nothing, where router and static answered all alike


def test_progress_is_told_and_adds_up(whole):
    stages = {name: (total, done) for name, total, done in whole[2].stages}
    assert set(ARMS) <= set(stages) and "fitting selectors" in stages
    for name in ("fitting selectors", "every prompt on every item", "dense"):
        total, done = stages[name]
        assert done == total, name


def test_the_same_call_again_computes_nothing_and_finds_the_same(settings, monkeypatch):
    first = evaluate(settings())
    for place, name in ((lm_module, "score"), (selectors_module, "calibrate"), (IdpLM, "_model_generate")):
        monkeypatch.setattr(place, name, lambda *a, **k: pytest.fail("computed again"))
    again = evaluate(settings())
    for name in ARMS:
        assert again.arms[name].values == first.arms[name].values
    assert again.gaps.keys() == first.gaps.keys()
    assert [pair.p for pair in again.paired] == [pair.p for pair in first.paired]


def test_an_interrupted_evaluation_goes_on_where_it_stopped(settings, monkeypatch):
    score, done = lm_module.score, []

    def interrupted(store, requests, *args, **kwargs):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(len(requests))
        return score(store, requests, *args, **kwargs)

    short = settings(arms=("compressed", "random", "attention"), tasks=("atlas_easy", "atlas_pair"))
    monkeypatch.setattr(lm_module, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(short)
    counted = []
    monkeypatch.setattr(lm_module, "score", lambda s, r, *a, **k: counted.append(len(r)) or score(s, r, *a, **k))
    resumed = evaluate(short)
    later = sum(counted)
    counted.clear()
    fresh = evaluate(dataclasses.replace(short, output_dir=short.output_dir.with_name("fresh")))
    assert {name: arm.values for name, arm in resumed.arms.items()} == {n: a.values for n, a in fresh.arms.items()}
    assert sum(done) > 0 and sum(done) + later == sum(counted)  # nothing was computed twice


def test_answers_of_another_model_in_the_folder_are_not_taken(settings, dense):
    one = evaluate(settings(arms=("compressed",), tasks=("atlas_text",)))
    other = evaluate(settings(model=dense, arms=("compressed",), tasks=("atlas_text",), allow_mismatch=True))
    assert one.arms["compressed"].values != other.arms["compressed"].values


def test_a_prompt_that_leaves_no_room_is_one_clear_line(settings, compressed, tmp_path):
    long = PromptBank([Prompt("long", text="Once upon a time there was a small town. " * 200)])
    folder = long.save(tmp_path / "long")
    with pytest.raises(Exception, match="long") as caught:
        evaluate(settings(bank=str(folder), arms=("random",), tasks=("atlas_easy",)))
    assert type(caught.value).__name__ == "PromptTooLongError"


def test_a_suite_without_an_accuracy_has_neither_mean_nor_statistics(settings):
    evaluation = evaluate(settings(tasks=("atlas_text",), arms=("dense", "compressed", "random")))
    assert evaluation.gaps == {} and evaluation.paired == []
    results = json.loads(write_report(evaluation)["results"].read_text())
    assert results["idp"]["arms"]["random"]["mean"] is None


def test_another_selector_can_be_an_arm(settings):
    arms = ("compressed", "attention:score=joint_mass,queries=last")
    evaluation = evaluate(settings(arms=arms, tasks=("atlas_easy",)))
    files = write_report(evaluation)
    assert tuple(evaluation.arms) == arms
    assert (files["samples"] / "samples_atlas_easy_attention-score-joint_mass-queries-last.jsonl").exists()


def test_the_suites_file_is_what_settings_default_to():
    assert set(Settings().tasks) <= set(yaml.safe_load((eval_dir() / "suites.yaml").read_text())["suites"])
    assert Settings().arms == ARMS


def test_all_windows_of_a_running_text_share_one_prompt(settings, monkeypatch):
    from idp.evaluate.lm import IdpLM

    monkeypatch.setattr(IdpLM, "max_length", property(lambda self: 64))
    chosen = set()
    select = IdpLM._select
    monkeypatch.setattr(IdpLM, "_select", lambda self, seen, *rest: chosen.update(seen) or select(self, seen, *rest))
    evaluate(settings(tasks=("atlas_text",), arms=("random",)))
    assert len(chosen) == 1
