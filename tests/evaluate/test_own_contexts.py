"""Options with contexts of their own, as Winogrande has them: one prompt a question, chosen before the blank."""

from __future__ import annotations

import pytest
from lm_eval.models.huggingface import HFLM
from local_tasks import write_rows
from one_arm import run_arm

from idp.evaluate import IdpLM
from idp.evaluate.calibration import usable
from idp.evaluate.material import _text
from idp.evaluate.mixtures import Mixture, MixtureLM
from idp.evaluate.oracle import FixedSelector, outcomes
from idp.evaluate.tasks import load_tasks
from idp.select.oracle import OracleSelector

ROWS = [
    ("Ann paid Sam at the mill because _ was rich.", ["Ann", "Sam"], 0),
    ("Ann paid Sam at the mill because _ was poor.", ["Ann", "Sam"], 1),
    ("The miller counts his sacks of flour, then _ sleeps by the sea.", ["Samuel", "Sally"], 0),
    ("_ is the capital of France.", ["Paris", "Anna"], 0),
]
STEMS = ["Ann paid Sam at the mill because", "The miller counts his sacks of flour, then", ""]


@pytest.fixture
def entry(tmp_path):
    rows = [{"question": text, "choices": options, "answer": answer} for text, options, answer in ROWS]
    write_rows(tmp_path / "winogrande" / "validation.jsonl", rows)
    [loaded] = load_tasks(["winogrande"], tmp_path)
    loaded.task.build_all_requests()
    return loaded


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2"])
def test_without_prompts_it_answers_as_lm_evals_own_model(tiny_lm, entry, architecture):
    lm = tiny_lm(architecture)
    requests = entry.task.instances
    ours = IdpLM(lm, selector="none", batch_size=3).loglikelihood(requests)
    theirs = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=3).loglikelihood(requests)
    assert len(ours) == 2 * len(ROWS)
    for (value, greedy), (expected, also) in zip(ours, theirs, strict=True):
        assert value == pytest.approx(expected, abs=1e-4)
        assert greedy == also


def test_the_selector_sees_what_stands_before_the_blank(lm, bank, entry, spy):
    selector = spy().fit(bank, lm)
    prompted = IdpLM(lm, bank, selector)
    prompted.loglikelihood(entry.task.instances)
    before = [tuple(prompted.tok_encode(text)) if text else (prompted.prefix_token_id,) for text in STEMS]
    assert sorted(selector.seen) == sorted(before)  # each once


def test_a_selector_that_looks_at_answers_is_told_of_none(lm, bank, entry, spy):
    class Nosy(spy):
        answers = True

        def select_among(self, inputs, options):
            self.told = [*getattr(self, "told", []), *options]
            return self.select_batch(inputs)

    selector = Nosy().fit(bank, lm)
    IdpLM(lm, bank, selector).loglikelihood(entry.task.instances)
    assert selector.told == [()] * len(STEMS)  # two questions have one stem, and each its own end


def test_all_options_of_a_question_are_scored_under_its_prompt(lm, bank, entry, spy):
    selector = spy().fit(bank, lm)
    mixed = IdpLM(lm, bank, selector).loglikelihood(entry.task.instances)
    fixed = {
        index: IdpLM(lm, bank, FixedSelector(index).fit(bank, lm)).loglikelihood(entry.task.instances)
        for index in (*range(len(bank)), -1)
    }
    seen = list(selector.seen)
    chosen = {ids: choice.index for ids, choice in zip(seen, selector.select_batch(seen), strict=True)}
    assert len(set(chosen.values())) > 1
    plain = IdpLM(lm, selector="none")
    for place, instance in enumerate(entry.task.instances):
        stem = [STEMS[0], STEMS[0], STEMS[1], STEMS[2]][instance.doc_id]
        index = chosen[plain.context_ids(instance, stem)]
        assert mixed[place][0] == pytest.approx(fixed[index][place][0], abs=1e-4)


def test_samples_say_what_was_chosen(lm, bank, entry, spy):
    selector = spy().fit(bank, lm)
    arm = run_arm("spy", IdpLM(lm, bank, selector), [entry], None)
    names = [*bank.names, None]
    seen = {text: selector.select_batch([ids])[0] for text, ids in _ids(lm, bank).items()}
    stems = [STEMS[0], STEMS[0], STEMS[1], STEMS[2]]
    for row, stem in zip(arm.samples["winogrande"], stems, strict=True):
        assert row["idp_prompt"] == names[seen[stem].index]
        assert row["idp_scores"] == list(seen[stem].scores)
    assert len(arm.items["winogrande"]) == len(ROWS)


def _ids(lm, bank):
    plain = IdpLM(lm, selector="none")
    return {text: plain._stem_ids(text) for text in STEMS}


def test_the_best_choice_in_hindsight_is_found_by_what_the_selector_sees(lm, bank, entry):
    prompted = [IdpLM(lm, bank, FixedSelector(index).fit(bank, lm)) for index in (*range(len(bank)), -1)]
    found = outcomes(prompted, [entry], lambda entry: None)
    assert [tuple(ids) for ids in found.inputs] == [_ids(lm, bank)[text] for text in (STEMS[0], *STEMS)]
    arm = run_arm("oracle", IdpLM(lm, bank, OracleSelector().fit(bank, lm, found)), [entry], None)
    assert arm.mean >= max(float(-column.mean()) for column in found.losses.T)


def test_mixtures_are_made_of_what_the_selector_sees(lm, bank, entry, spy):
    selector = spy().fit(bank, lm)
    mixed = MixtureLM(Mixture.parse("mix:how=ensemble,k=2,of=random"), lm, bank, selector)
    arm = run_arm("mixed", mixed, [entry], None)
    assert sorted(selector.seen) == sorted(_ids(lm, bank).values())
    assert all(row["idp_prompt"] for row in arm.samples["winogrande"])


def test_nothing_is_learned_of_it_since_a_loss_has_one_context(entry, tmp_path, tasks):
    rows = [{"question": text, "choices": options, "answer": answer} for text, options, answer in ROWS]
    write_rows(tmp_path / "winogrande" / "train.jsonl", rows)
    [again] = load_tasks(["winogrande"], tmp_path)
    [easy] = tasks("easy")
    assert again.task.has_training_docs() and again.own_contexts and not easy.own_contexts
    assert usable([again, easy]) == [easy]


def test_as_words_it_is_the_whole_sentence(entry):
    assert _text(entry, entry.task.eval_docs[1]) == "Ann paid Sam at the mill because Sam was poor."
