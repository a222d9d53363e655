from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from idp.errors import TaskError
from idp.evaluate import IdpLM
from idp.evaluate.calibration import TEXT_TOKENS, calibrate, training_examples
from idp.run.store import PrefixStore
from idp.tune.examples import Example


class TrainingOnly:
    """A task whose test items must not be looked at."""

    def __init__(self, task):
        self._task = task

    def __getattr__(self, name):
        if name in ("eval_docs", "test_docs", "validation_docs", "doc_iterator", "build_all_requests", "instances"):
            pytest.fail(f"calibration looked at {name}")
        return getattr(self._task, name)


def test_only_training_items_are_looked_at_and_none_of_them_is_a_test_item(lm, tasks):
    loaded = [dataclasses.replace(entry, task=TrainingOnly(entry.task)) for entry in tasks()]
    examples = training_examples(lm, loaded, 90)
    tests = {json.dumps(doc, sort_keys=True) for entry in tasks() for doc in entry.task.eval_docs}
    trains = {
        json.dumps(doc, sort_keys=True) for entry in tasks() if not entry.control for doc in entry.task.training_docs()
    }
    assert not tests & trains
    quizzes = tasks("easy", "hard", "support", "short", "trivia", "pair", "control")
    asked = {entry.task.doc_to_text(doc) for entry in quizzes for doc in entry.task.eval_docs}
    read = {lm.tokenizer.decode(example.context, skip_special_tokens=True) for example in examples}
    assert len(read) > 60 and len(asked) > 3000
    assert not asked & read


def test_equally_many_items_of_each_task_but_none_of_the_control(lm, tasks):
    groups = [example.group for example in training_examples(lm, tasks(), 36)]
    assert {group: groups.count(group) for group in groups} == {
        entry.name: 4 for entry in tasks() if entry.name != "atlas_control"
    }


def test_the_seed_decides_which_items(lm, tasks):
    loaded = tasks("easy", "trivia")
    assert training_examples(lm, loaded, 20, 1) == training_examples(lm, loaded, 20, 1)
    assert training_examples(lm, loaded, 20, 1) != training_examples(lm, loaded, 20, 2)


def test_never_more_items_than_there_are(lm, tasks):
    examples = training_examples(lm, tasks("text"), 10**6)
    assert len(examples) == 50


def test_without_a_training_split_nothing_can_be_fitted(lm, tasks):
    with pytest.raises(TaskError, match="training split"):
        training_examples(lm, tasks("control"), 10)


def test_examples_are_tokenized_as_lm_eval_tokenizes_requests(lm, tasks):
    """Contexts and options of every task format, against the requests that lm-eval builds of the same items."""
    bare = IdpLM(lm, selector="none")
    for entry in tasks("easy", "support", "short", "trivia", "pair", "endings", "last_word", "text"):
        docs = list(entry.task.training_docs())
        examples = training_examples(lm, [entry], len(docs))
        assert len(examples) == len(docs)
        for doc, example in list(zip(docs, examples, strict=True))[:5]:
            context = entry.task.doc_to_text(doc)
            if entry.task.OUTPUT_TYPE == "loglikelihood_rolling":
                assert example.context == (bare.prefix_token_id,)
                assert list(example.right) == bare.tok_encode(entry.task.doc_to_target(doc))
                continue
            if entry.task.OUTPUT_TYPE == "generate_until":
                assert list(example.context) == bare.tok_encode(context)
                assert lm.tokenizer.decode(example.right) == f" {doc['aliases'][0]}"
                continue
            requests = entry.task.construct_requests(doc, context, metadata=("t", 0, 1), apply_chat_template=False)
            requests = requests if isinstance(requests, list) else [requests]
            pairs = [bare._encode_pair(*request.args) for request in requests]
            assert example.context == tuple(pairs[0][0])
            assert example.continuations == tuple(tuple(continuation) for _, continuation in pairs)
            right = doc["choices"][doc["answer"]] if "choices" in doc else None
            assert right is None or lm.tokenizer.decode(example.right) == f" {right}"


def test_losses_are_measured_under_every_prompt_and_none(lm, bank, tasks):
    examples = training_examples(lm, tasks("easy", "trivia", "text"), 6)
    counted = []
    calibration = calibrate(PrefixStore(lm, bank), examples, 4, counted.append)
    assert calibration.losses.shape == (6, len(bank) + 1)
    assert torch.isfinite(calibration.losses).all() and (calibration.losses > 0).all()
    assert sum(counted) == 6 * (len(bank) + 1)
    assert calibration.inputs == [example.context for example in examples]
    assert calibration.groups == [example.group for example in examples]


def test_where_no_item_fits_it_is_said_how_to_do_without(lm, bank):
    long = Example((1,) * (lm.max_length + 1), ((2,),), 0, "easy")
    with pytest.raises(TaskError, match="none of 1 examples fits.*--no-fit"):
        calibrate(PrefixStore(lm, bank), [long], 4)


def test_running_text_is_cut_to_what_tells_prompts_apart(lm, bank):
    long = Example((1,), (tuple(3 + n % 300 for n in range(lm.max_length)),), 0, "text")
    cut = long.with_options((long.right[:TEXT_TOKENS],), 0)
    losses = [calibrate(PrefixStore(lm, bank), [example], 4).losses for example in (long, cut)]
    assert torch.equal(*losses)
