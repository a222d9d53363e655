from __future__ import annotations

import lm_eval
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

import idp.evaluate.lm as lm_module
from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import BankError, IdpError, SelectorError
from idp.evaluate import IdpLM
from idp.evaluate.memo import Memo
from idp.evaluate.oracle import FixedSelector
from idp.resources import eval_dir
from idp.select.calibration import Calibration
from idp.select.registry import get_selector


def answers(lm, loaded):
    """What a model answers to every request of tasks, request by request."""
    found = []
    for entry in loaded:
        kind = entry.task.OUTPUT_TYPE
        ask = getattr(lm, "loglikelihood" if kind == "multiple_choice" else kind)
        found += [(entry.name, answer) for answer in ask(entry.task.instances)]
    return found


def request(kind, *args):
    return Instance(kind, {}, args, 0)


def plain(lm, prompt, context, continuation):
    """Log-likelihood by one uncached row: prompt, context and continuation as embeddings."""
    ids = torch.tensor([*context, *continuation])
    embeds = torch.cat([lm.embed_prompt(prompt), lm.embed(ids)])[None]
    with torch.no_grad():
        logits = lm.model(inputs_embeds=embeds, use_cache=False).logits[0, -len(continuation) - 1 : -1]
    return float(logits.log_softmax(-1)[torch.arange(len(continuation)), torch.tensor(continuation)].sum())


ARCHITECTURES = ("llama", "opt", "gpt2", "qwen2", "gemma2", "bloom")  # the last one by ALiBi, in rows of one option


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("length", [1024, 128])
def test_without_prompts_it_answers_as_lm_evals_own_model(tiny_lm, built, caplog, architecture, length):
    """On all embedded tasks; in a context of 128 tokens many items are cut and every text takes several windows."""
    field = {"gpt2": "n_positions", "bloom": "seq_length"}.get(architecture, "max_position_embeddings")
    lm = tiny_lm(architecture, **{field: length})
    loaded = built()
    assert {entry.name for entry in loaded} == {path.stem for path in (eval_dir() / "tasks").rglob("atlas_*.yaml")}
    ours = IdpLM(lm, selector="none", batch_size=4)
    own = answers(ours, loaded)
    same = {"pretrained": lm.model, "tokenizer": lm.tokenizer, "batch_size": 4, "max_length": length}
    theirs = answers(HFLM(**same), loaded)
    # Its sums are in fp32, which over the thousands of nats of a whole text is off by more than the 1e-4 asked for.
    whole = [entry for entry in loaded if entry.name == "atlas_text"]
    texts = answers(HFLM(**same, softmax_dtype="float64"), whole)
    assert len(own) > 60
    for (task, a), (_, b) in zip(own, theirs, strict=True):
        if isinstance(a, tuple):
            assert a[0] == pytest.approx(b[0], abs=1e-4), task
            assert a[1] == b[1], task
        elif isinstance(a, str):
            assert a == b
    rolling = [value for task, value in own if task == "atlas_text"]
    assert len(rolling) == 3
    assert rolling == pytest.approx([value for _, value in texts], abs=1e-4)
    assert ("was cut to its last" in caplog.text) == (length == 128)
    for instance in whole[0].task.instances:
        assert (len(ours._windows(instance.args[0])) > 3) == (length == 128)


def test_no_prompt_out_of_a_bank_is_the_same_as_no_bank(lm, bank, built):
    loaded = built(limit=2)
    without = answers(IdpLM(lm, selector="none"), loaded)
    within = answers(IdpLM(lm, bank, FixedSelector(-1).fit(bank, lm)), loaded)
    assert without == within


def test_a_bank_of_one_prompt_is_plain_prompting(lm, built):
    prompt = Prompt("only", embedding=0.3 * torch.randn(7, lm.hidden_size, generator=torch.Generator().manual_seed(1)))
    bank = PromptBank([prompt], lm.fingerprint)
    prompted = IdpLM(lm, bank, FixedSelector(0).fit(bank, lm), batch_size=3)
    instances = [i for entry in built("easy", "last_word", limit=3) for i in entry.task.instances]
    for instance, (value, _) in zip(instances, prompted.loglikelihood(instances), strict=True):
        assert value == pytest.approx(plain(lm, prompt, *prompted._encode_pair(*instance.args)), abs=1e-4)


@pytest.mark.parametrize("index", [0, 2])
def test_generation_under_a_prompt_is_plain_prompting(lm, bank, built, index):
    prompted = IdpLM(lm, bank, FixedSelector(index).fit(bank, lm), batch_size=2)
    instances = built("trivia", limit=5)[0].task.instances
    for instance, text in zip(instances, prompted.generate_until(instances), strict=True):
        context, settings = instance.args
        embeds = torch.cat([lm.embed_prompt(bank[index]), lm.embed(torch.tensor(prompted.tok_encode(context)))])[None]
        new = lm.model.generate(inputs_embeds=embeds, max_new_tokens=settings["max_gen_toks"], do_sample=False)
        expected = lm.tokenizer.decode(new[0], skip_special_tokens=True)
        for stop in settings["until"]:
            expected = expected.split(stop)[0]
        assert text == expected


def test_mixed_prompts_answer_as_each_would_alone(lm, bank, built, spy):
    loaded = built("easy", "support", "trivia", "last_word")
    mixed = answers(IdpLM(lm, bank, spy().fit(bank, lm), batch_size=5), loaded)
    fixed = [answers(IdpLM(lm, bank, FixedSelector(i).fit(bank, lm), batch_size=1), loaded) for i in (0, 1, 2, -1)]
    lengths = IdpLM(lm, selector="none")
    chosen = [len(lengths.context_ids(i)) % 4 - 1 for entry in loaded for i in entry.task.instances]
    assert set(chosen) == {0, 1, 2, -1}
    for (_, got), place, *alone in zip(mixed, chosen, *fixed, strict=True):
        expected = alone[place][1]
        if isinstance(got, tuple):
            assert got[0] == pytest.approx(expected[0], abs=1e-4)
            assert got[1] == expected[1]
        else:
            assert got == expected


def test_prompts_change_the_answers(lm, bank, built):
    loaded = built("easy")
    values = [answers(IdpLM(lm, bank, FixedSelector(i).fit(bank, lm)), loaded) for i in (0, 1, 2, -1)]
    firsts = [value[0][1][0] for value in values]
    assert len({round(first, 3) for first in firsts}) == 4


def test_the_selector_sees_the_context_only(lm, bank, built, spy):
    loaded = built("easy", "pair", "endings", "short", "trivia", "last_word")
    selector = spy().fit(bank, lm)
    prompted = IdpLM(lm, bank, selector)
    answers(prompted, loaded)
    contexts = set()
    for entry in loaded:
        for _, doc in entry.task.doc_iterator(rank=0, limit=3, world_size=1):
            contexts.add(tuple(prompted.tok_encode(entry.task.doc_to_text(doc))))
    assert set(selector.seen) == contexts
    assert len(selector.seen) == len(contexts)  # each once


def test_a_selector_that_looks_at_answers_is_told_those_of_each_task_and_no_other(lm, bank, built, spy):
    class Nosy(spy):
        answers = True

        def select_among(self, inputs, options):
            self.told = [*getattr(self, "told", []), *zip(map(tuple, inputs), options, strict=True)]
            return self.select_batch(inputs)

    easy, short = built("easy", "short")
    selector = Nosy().fit(bank, lm)
    prompted = IdpLM(lm, bank, selector)
    answers(prompted, [easy])
    [first, *_] = easy.task.instances
    context, option = prompted._encode_pair(*first.args)
    told = dict(selector.told)[tuple(context)]
    assert tuple(option) in told and len(told) == 4
    prompted.loglikelihood(
        [Instance("loglikelihood", {}, (first.args[0], first.args[1]), 0)]
    )  # the only answer is the right one
    assert [given for ids, given in selector.told if ids == tuple(context)] == [told, ()]
    answers(prompted, [short])  # generates: no answers are known
    assert all(given == () for _, given in selector.told[-len(short.task.instances) :])


def test_of_running_text_the_selector_sees_nothing_but_earlier_windows(lm, bank, built, spy):
    selector = spy().fit(bank, lm)
    prompted = IdpLM(lm, bank, selector)
    answers(prompted, built("text"))
    assert set(selector.seen) == {(prompted.prefix_token_id,)}


def test_all_options_of_a_question_are_scored_under_one_prompt(lm, bank, built, spy, monkeypatch):
    calls = []

    def recorded(store, requests, choices, **options):
        calls.extend(zip(requests, choices, strict=True))
        return score(store, requests, choices, **options)

    score = lm_module.score
    monkeypatch.setattr(lm_module, "score", recorded)
    entry = built("endings", limit=6)[0]
    prompted = IdpLM(lm, bank, spy().fit(bank, lm))
    answers(prompted, [entry])
    assert len(calls) == 6  # one row a question
    assert all(len(request.continuations) == 4 for request, _ in calls)
    assert len({choice for _, choice in calls}) > 1


def test_options_share_a_prompt_even_where_their_tokens_differ_in_the_context(lm, bank, spy, monkeypatch):
    """A merge across the border gives each option a context of its own; the first decides for all."""
    prompted = IdpLM(lm, bank, spy().fit(bank, lm))
    pairs = [(("one question", " a"), [1, 5, 6], [7]), (("one question", " b"), [1, 5], [8, 9])]
    score, chosen = lm_module.score, []

    def recorded(store, requests, choices, **options):
        chosen.extend(choices)
        return score(store, requests, choices, **options)

    monkeypatch.setattr(lm_module, "score", recorded)
    prompted._loglikelihood_tokens(pairs)
    assert chosen == [3 % 4 - 1] * 2


def test_answers_are_kept_and_the_time_they_took_counts_again(lm, bank, built, tmp_path, monkeypatch):
    loaded = built("easy", "trivia", "text", limit=2)
    selector = FixedSelector(1).fit(bank, lm)
    first = IdpLM(lm, bank, selector, memo=Memo(tmp_path / "answers.sqlite", "x"))
    expected = answers(first, loaded)
    monkeypatch.setattr(lm_module, "score", lambda *a, **k: pytest.fail("scored again"))
    monkeypatch.setattr(IdpLM, "_model_generate", lambda *a, **k: pytest.fail("generated again"))
    second = IdpLM(lm, bank, selector, memo=Memo(tmp_path / "answers.sqlite", "x"))
    assert answers(second, loaded) == expected
    assert second.seconds == pytest.approx(first.seconds, rel=0.5)
    assert second.seconds > 0


def test_answers_of_one_prompt_are_not_taken_for_anothers(lm, bank, built, tmp_path):
    loaded = built("easy", "trivia", limit=2)
    memo = Memo(tmp_path / "answers.sqlite", "x")
    shared = [answers(IdpLM(lm, bank, FixedSelector(i).fit(bank, lm), memo=memo), loaded) for i in (0, 1, -1)]
    alone = [answers(IdpLM(lm, bank, FixedSelector(i).fit(bank, lm)), loaded) for i in (0, 1, -1)]
    assert shared == alone
    renamed = PromptBank([Prompt("other name", text=bank[0].text)], lm.fingerprint)
    assert answers(IdpLM(lm, renamed, FixedSelector(0).fit(renamed, lm), memo=memo), loaded) == alone[0]


def test_an_interrupted_run_keeps_what_it_has(lm, bank, built, tmp_path, monkeypatch):
    loaded = built("easy", limit=40)
    score, calls = lm_module.score, []

    def interrupted(*args, **kwargs):
        if calls:
            raise KeyboardInterrupt
        calls.append(len(args[1]))
        return score(*args, **kwargs)

    monkeypatch.setattr(lm_module, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answers(IdpLM(lm, selector="none", batch_size=2, memo=Memo(tmp_path / "a.sqlite", "x")), loaded)
    done = []
    monkeypatch.setattr(lm_module, "score", lambda *a, **k: done.append(len(a[1])) or score(*a, **k))
    resumed = answers(IdpLM(lm, selector="none", batch_size=2, memo=Memo(tmp_path / "a.sqlite", "x")), loaded)
    assert calls == [32] and sum(done) == 40 - 32
    assert resumed == answers(IdpLM(lm, selector="none", batch_size=2), loaded)


def test_progress_counts_every_request_once_also_when_it_was_kept(lm, built, tmp_path):
    loaded = built("easy", "trivia", limit=3)
    for _ in range(2):
        counted = []
        memo = Memo(tmp_path / "a.sqlite", "x")
        answers(IdpLM(lm, selector="none", memo=memo, advance=counted.append), loaded)
        assert sum(counted) == 6


def test_room_is_left_for_the_longest_prompt(lm, bank):
    longest = max(len(lm.embed_prompt(prompt)) for prompt in bank)
    assert IdpLM(lm, bank, "random").max_length == lm.max_length - longest
    assert IdpLM(lm, selector="none").max_length == lm.max_length


def test_a_context_that_is_too_long_keeps_its_end_and_its_prompt(tiny_lm):
    """Of a context that was cut, the selector's choice still counts, in scoring and in generation."""
    lm = tiny_lm(max_position_embeddings=64)
    bank = PromptBank([Prompt("text", text="Answer: "), Prompt("long", text="Once upon a time ")])
    prompted = IdpLM(lm, bank, FixedSelector(1).fit(bank, lm), batch_size=2)
    context = "Where does the owl live? " * 20
    ids = prompted.tok_encode(context)
    assert len(ids) > 64
    text = prompted.generate_until([request("generate_until", context, {"until": ["#"], "max_gen_toks": 8})])[0]
    kept = torch.tensor(ids[-(prompted.max_length - 8) :])
    embeds = torch.cat([lm.embed_prompt(bank[1]), lm.embed(kept)])[None]
    new = lm.model.generate(inputs_embeds=embeds, max_new_tokens=8, do_sample=False)
    assert text == lm.tokenizer.decode(new[0], skip_special_tokens=True)
    value = prompted.loglikelihood([request("loglikelihood", context.rstrip(), " yes")])[0][0]
    _, continuation = prompted._encode_pair(context.rstrip(), " yes")
    room = prompted.max_length + 1 - len(continuation)
    cut = prompted.tok_encode(context.rstrip())[-room:]
    assert value == pytest.approx(plain(lm, bank[1], cut, continuation), abs=1e-4)


def test_long_running_text_is_scored_in_windows_beside_the_prompt(tiny_lm):
    lm = tiny_lm(max_position_embeddings=64)
    bank = PromptBank([Prompt("text", text="Once upon a time ")])
    text = "The river runs past the old mill. " * 20
    rolling = [request("loglikelihood_rolling", text)]
    prompted = IdpLM(lm, bank, FixedSelector(0).fit(bank, lm))
    bare = IdpLM(lm, selector="none").loglikelihood_rolling(rolling)[0]
    assert prompted.loglikelihood_rolling(rolling)[0] != pytest.approx(bare, abs=1e-2)
    assert prompted.selection_of(text).index == 0


def test_the_choice_can_be_read_for_every_context(lm, bank, built, spy):
    prompted = IdpLM(lm, bank, spy().fit(bank, lm))
    loaded = built("easy", "trivia", "text")
    answers(prompted, loaded)
    for entry in loaded:
        for instance in entry.task.instances:
            selection = prompted.selection_of(instance.args[0])
            assert selection.index == len(prompted.context_ids(instance)) % 4 - 1
            assert len(selection.scores) == 4


@pytest.mark.parametrize("given, rows", [(3, 3), ("7", 7), ("auto", 32), ("auto:4", 32)])
def test_batch_size_is_a_number_or_auto(lm, given, rows):
    assert int(IdpLM(lm, selector="none", batch_size=given).batch_size) == rows


@pytest.mark.parametrize("given", [0, -1, "many", ""])
def test_a_wrong_batch_size_is_refused(lm, given):
    with pytest.raises(IdpError, match="batch_size"):
        IdpLM(lm, selector="none", batch_size=given)


def test_a_selector_needs_a_bank_and_a_bank_its_own_model(lm, bank, tiny_lm):
    with pytest.raises(SelectorError, match="bank"):
        IdpLM(lm, selector="random")
    with pytest.raises(SelectorError, match=r"[Dd]id you mean 'random'"):
        IdpLM(lm, bank, "randum")
    with pytest.raises(BankError, match="made for"):
        IdpLM(tiny_lm(max_position_embeddings=1024, seed=1), bank, "random")


def simple_evaluate(model, **arguments):
    manager = lm_eval.tasks.TaskManager(include_path=str(eval_dir() / "tasks"), include_defaults=False)
    options = {"limit": 3, "bootstrap_iters": 0, "device": "cpu", "batch_size": 2, "task_manager": manager}
    return lm_eval.simple_evaluate(model=model, tasks=["atlas_easy", "atlas_trivia"], **(options | arguments))


def test_lm_eval_finds_the_model_by_its_name(compressed, bank_folder):
    arguments = f"pretrained={compressed},bank={bank_folder},selector=random,seed=3,dtype=float32"
    output = simple_evaluate("idp", model_args=arguments)
    assert set(output["results"]) == {"atlas_easy", "atlas_trivia"}
    assert output["config"]["model"] == "idp"
    again = simple_evaluate("idp", model_args={k: v for k, v in (a.split("=") for a in arguments.split(","))})
    assert again["results"] == output["results"]


def test_lm_eval_runs_the_bare_model_like_its_own(compressed):
    own = simple_evaluate("idp", model_args=f"pretrained={compressed},selector=none,dtype=float32")
    theirs = simple_evaluate("hf", model_args=f"pretrained={compressed},dtype=float32")
    assert own["results"] == theirs["results"]


def test_an_unknown_model_argument_is_an_error_that_names_the_near_miss(lm, bank):
    with pytest.raises(IdpError, match="unknown model argument 'selecter'. Did you mean 'selector'"):
        IdpLM(lm, bank, selecter="none")


def test_a_fitted_selector_in_the_bank_is_used(lm, bank, built):
    inputs = [tuple(range(3, 3 + n)) for n in range(1, 40)]
    losses = torch.rand(len(inputs), len(bank) + 1, generator=torch.Generator().manual_seed(0))
    router = get_selector("router").fit(bank, lm, Calibration(inputs, losses))
    kept = bank.with_selector("router", router.state())
    loaded = built("easy")
    prompted = IdpLM(lm, kept)
    answers(prompted, loaded)
    for instance in loaded[0].task.instances:
        assert prompted.selection_of(instance.args[0]).index == router.select(prompted.context_ids(instance)).index


def test_whole_texts_do_not_share_a_row(lm, bank, built, monkeypatch):
    """They share the prefix token as their context, but one row of all would need a mask of its length squared."""
    score, rows = lm_module.score, []

    def recorded(store, requests, choices, **options):
        rows.extend(requests)
        return score(store, requests, choices, **options)

    monkeypatch.setattr(lm_module, "score", recorded)
    answers(IdpLM(lm, selector="none"), built("text", limit=5))
    assert len(rows) >= 3
    assert all(len(r.continuations) == 1 or sum(map(len, r.continuations)) <= lm_module.ROW_TOKENS for r in rows)
