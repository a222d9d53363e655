from __future__ import annotations

import dataclasses
import json
import logging

import pytest
import torch

import idp.evaluate.divergence as divergence_module
from idp.bank.bank import PromptBank
from idp.evaluate import evaluate, write_report
from idp.evaluate.arms import run_task
from idp.evaluate.divergence import CONTEXTS, ROW_TOKENS, TEXT_ROWS, TOP_K, DenseReference
from idp.evaluate.lm import IdpLM
from idp.evaluate.oracle import FixedSelector
from idp.model.load import load
from idp.model.loaded import LanguageModel

LIMIT = 5


@pytest.fixture(scope="module")
def dense_lm(dense):
    return load(dense, "cpu", "float32")


def arm(lm, bank=None, index=-1):
    return IdpLM(lm, bank, "none" if bank is None else FixedSelector(index).fit(bank, lm), device="cpu")


@torch.no_grad()
def plainly(dense, lm, prompt, ids):
    """Mean divergence of the tokens behind the first one, over the likeliest tokens and the rest, in one plain pass."""
    rows = torch.tensor([ids])
    embeds = lm.model.get_input_embeddings()(rows)
    if prompt is not None:
        embeds = torch.cat([prompt[None], embeds], 1)
    own = lm.model(inputs_embeds=embeds).logits[0, -len(ids) :].double().log_softmax(-1)
    theirs = dense.model(input_ids=rows).logits[0].double().log_softmax(-1)
    best = theirs.topk(TOP_K, -1)
    p, q = best.values.exp(), own.gather(-1, best.indices)
    rest_p, rest_q = 1 - p.sum(-1), (1 - q.exp().sum(-1)).clamp_min(1e-300)
    kl = (p * (best.values - q)).sum(-1) + rest_p * (rest_p.log() - rest_q.log())
    return float(kl.mean())


@pytest.mark.parametrize("index", [-1, 1, 2])
def test_contexts_are_compared_token_by_token_behind_the_chosen_prompt(lm, bank, dense_lm, tasks, tmp_path, index):
    [entry] = tasks("easy")
    reference, under = DenseReference(tmp_path), arm(lm, bank, index)
    samples = run_task(under, entry, LIMIT).samples
    reference.ask(arm(dense_lm), entry, samples, lm)
    found = reference.measure(under, entry, samples)
    prompt = None if index == -1 else bank.prompts[index].embedding
    expected = [
        plainly(dense_lm, lm, prompt, under.tok_encode(row["arguments"][0][0])[-ROW_TOKENS:]) for row in samples
    ]
    assert len(found) == LIMIT
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_model_without_a_prompt_does_not_diverge_from_itself_and_behind_one_it_does(lm, bank, tasks, tmp_path):
    [entry] = tasks("short")
    reference = DenseReference(tmp_path)
    bare, under = arm(lm), arm(lm, bank, 1)
    samples = run_task(bare, entry, LIMIT).samples
    run_task(under, entry, LIMIT)
    reference.ask(bare, entry, samples, lm)
    assert max(reference.measure(bare, entry, samples)) < 1e-5
    assert min(reference.measure(under, entry, samples)) > 1e-3


def test_a_running_text_is_read_in_windows_from_its_beginning(lm, dense_lm, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(divergence_module, "ROW_TOKENS", 9)
    [entry] = tasks("text")
    bare = arm(lm)
    samples = run_task(bare, entry, LIMIT).samples
    reference = DenseReference(tmp_path)
    reference.ask(arm(dense_lm), entry, samples, lm)
    found = reference.measure(bare, entry, samples)
    rows = [
        (bare.prefix_token_id, *ids[begin : begin + 8])
        for row in samples
        for ids in [bare.tok_encode(row["arguments"][0][0])]
        for begin in range(0, min(len(ids), 64), 8)
    ]
    assert TEXT_ROWS >= len(found) > LIMIT
    if len(rows) == len(found):  # all of them: a window's last token is predicted by the one before
        expected = [plainly(dense_lm, lm, None, row[:-1]) for row in rows]
        assert found == pytest.approx(expected, abs=1e-4)


def test_contexts_are_no_more_than_asked_for_and_spread_over_the_items(lm, dense_lm, tasks, tmp_path):
    [entry] = tasks("hard")
    bare = arm(lm)
    samples = run_task(bare, entry, CONTEXTS * 2).samples
    reference = DenseReference(tmp_path)
    reference.ask(arm(dense_lm), entry, samples, lm)
    assert len(reference.measure(bare, entry, samples)) == CONTEXTS


def test_models_with_other_tokens_are_not_compared(lm, dense_lm, tasks, tmp_path, caplog):
    [entry] = tasks("easy")
    bare = arm(lm)
    samples = run_task(bare, entry, LIMIT).samples
    other = LanguageModel(dense_lm.model, dense_lm.tokenizer, "other")
    other.fingerprint = dataclasses.replace(dense_lm.fingerprint, tokenizer="of another")
    reference = DenseReference(tmp_path)
    with caplog.at_level(logging.WARNING):
        reference.ask(arm(other), entry, samples, lm)
    assert "another tokenizer" in caplog.text
    assert reference.measure(bare, entry, samples) == []


def test_what_was_measured_is_kept_and_the_same_prompt_is_run_once(lm, bank, dense_lm, tasks, tmp_path, monkeypatch):
    [entry] = tasks("easy")
    one = arm(lm, bank, 1)
    two = IdpLM(
        lm, PromptBank([bank.prompts[1]]), FixedSelector(0).fit(PromptBank([bank.prompts[1]]), lm), memo=one.memo
    )
    samples = run_task(one, entry, LIMIT).samples
    run_task(two, entry, LIMIT)
    reference = DenseReference(tmp_path)
    reference.ask(arm(dense_lm), entry, samples, lm)
    found = reference.measure(one, entry, samples)
    monkeypatch.setattr(divergence_module, "run_requests", lambda *args: pytest.fail("run again") if args[1] else [])
    assert reference.measure(two, entry, samples) == found


def test_an_evaluation_tells_what_every_arm_gives_back(settings):
    arms = ("dense", "dense-static", "compressed", "random", "oracle")
    asked = settings(arms=arms, tasks=("atlas_easy", "atlas_text"))
    evaluation = evaluate(asked, then=write_report)
    results = json.loads((asked.output_dir / "results.json").read_text())["idp"]["divergence"]
    assert results["given_back"]["dense"]["value"] == 1 and results["given_back"]["compressed"]["value"] == 0
    assert set(results["nats"]) == set(arms)
    for name in arms[1:]:
        rows = evaluation.arms[name].divergence
        assert {task: len(values) for task, values in rows.items()} == results["rows"]
        mean = sum(values.mean() for values in rows.values()) / len(rows)
        assert results["nats"][name]["value"] == pytest.approx(mean)
    report = (asked.output_dir / "report.md").read_text()
    assert "divergence given back" in report
    again = evaluate(dataclasses.replace(asked, resume=True))
    assert all(
        (again.arms[n].divergence[t] == v).all() for n in arms[1:] for t, v in evaluation.arms[n].divergence.items()
    )


def test_without_the_dense_model_nothing_is_measured(settings):
    evaluation = evaluate(settings(arms=("compressed", "random"), tasks=("atlas_easy",)))
    assert evaluation.divergence is None
    assert all(not arm.divergence for arm in evaluation.arms.values())


def test_the_dense_model_without_prompts_of_its_own_leaves_the_row_out_and_says_so(settings):
    evaluation = evaluate(
        settings(arms=("dense", "dense-static", "compressed"), tasks=("atlas_easy",), dense_bank=None)
    )
    assert "dense-static" not in evaluation.arms
    assert any("--dense-bank" in note for note in evaluation.notes)


def test_running_text_can_be_bounded_apart_from_other_tasks(settings):
    asked = settings(arms=("compressed",), tasks=("atlas_easy", "atlas_text"), limit=4, text_limit=2)
    evaluation = evaluate(asked, then=write_report)
    results = json.loads((asked.output_dir / "results.json").read_text())
    assert {task: told["effective"] for task, told in results["n-samples"].items()} == {
        "atlas_easy": 4,
        "atlas_text": 2,
    }
    assert "--text-limit" in (asked.output_dir / "report.md").read_text()
    assert len(evaluation.arms["compressed"].samples["atlas_text"]) == 2
