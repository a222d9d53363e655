from __future__ import annotations

import gzip
import lzma

import pytest
from local_tasks import CASES, write_cases, write_rows

from idp.errors import TaskError
from idp.evaluate.tasks import load_tasks

PIQA = CASES["piqa"].row


@pytest.fixture
def folder(tmp_path):
    return write_cases(tmp_path / "data", ["piqa"])


@pytest.mark.parametrize(("opened", "ending"), [(lzma.open, "xz"), (gzip.open, "gz")])
def test_compressed_files_are_read(folder, opened, ending):
    plain = folder / "piqa" / "validation.jsonl"
    with opened(f"{plain}.{ending}", "wt", encoding="utf-8") as file:
        file.write(plain.read_text(encoding="utf-8"))
    plain.unlink()
    [entry] = load_tasks(["piqa"], folder)
    assert len(entry.task.eval_docs) == 6


def test_a_file_that_has_changed_is_read_again(folder):
    load_tasks(["piqa"], folder)
    write_rows(folder / "piqa" / "validation.jsonl", [PIQA | {"question": "To shut a jar"}])
    [entry] = load_tasks(["piqa"], folder)
    assert [doc["goal"] for doc in entry.task.eval_docs] == ["To shut a jar"]


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(TaskError, match=r"no folder .*nowhere .*--data-dir"):
        load_tasks(["piqa"], tmp_path / "nowhere")


def test_a_file_that_is_missing_is_named(folder):
    with pytest.raises(TaskError, match=r"'cola' has no data: looked for .*cola.validation\.jsonl and .*_ood\.jsonl"):
        load_tasks(["piqa", "cola"], folder)


def test_a_training_split_may_be_missing(folder):
    (folder / "piqa" / "train.jsonl").unlink()
    [entry] = load_tasks(["piqa"], folder)
    assert not entry.task.has_training_docs()


def test_a_task_without_a_local_form_is_refused(folder):
    with pytest.raises(TaskError, match=r"'openbookqa' cannot be read from --data-dir.*arc_easy.*mmlu_\*"):
        load_tasks(["openbookqa"], folder)


def test_a_group_that_changes_its_tasks_is_refused(folder):
    with pytest.raises(TaskError, match="'flan_held_in' changes its tasks"):
        load_tasks(["flan_held_in"], folder)


def test_embedded_tasks_keep_their_data(folder):
    names = [entry.name for entry in load_tasks(["atlas_easy", "piqa", "atlas_text"], folder)]
    assert names == ["atlas_easy", "piqa", "atlas_text"]


def test_tags_are_replaced_by_their_tasks(tmp_path):
    folder = write_cases(tmp_path, ["arc_easy", "arc_challenge"])
    entries = load_tasks(["ai2_arc"], folder)
    assert [(entry.name, entry.group) for entry in entries] == [("arc_challenge", None), ("arc_easy", None)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "JSON object"),
        ('{"question": "a", "choices": ["b", "c"]}', "'answer' is missing"),
        ('{"choices": ["b", "c"], "answer": 1}', "'question' is missing"),
        ('{"question": "a", "choices": ["b", "c"], "answer": 2}', "answer 2 is the place of none of 2"),
        ('{"question": "a", "choices": ["b", "c"], "answer": -1}', "answer -1 is the place of none of 2"),
        ('{"question": "a", "choices": ["b", "c", "d"], "answer": 1}', "no row of 'piqa'"),
        ('{"question": "a", "choices": 2, "answer": 1}', "'choices' has to be a list of texts"),
        ('{"question": "a", "choices": "bc", "answer": 1}', "'choices' has to be a list of texts"),
        ('{"question": "a", "choices": ["b", null], "answer": 1}', "'choices' has to be a list of texts"),
        ('{"question": "a", "choices": ["b", "c"], "answer": true}', "answer True is the place of none of 2"),
        ('{"question": null, "choices": ["b", "c"], "answer": 1}', "'question' has to be a text"),
        ('{"question": "a", "choices": ["b", "c"], "answer": 1, "answers": []}', "'answers' has to be a list of texts"),
    ],
)
def test_a_broken_line_is_named_by_its_number(folder, line, message):
    file = folder / "piqa" / "validation.jsonl"
    file.write_text(file.read_text() + "\n" + line + "\n")
    with pytest.raises(TaskError, match=rf"validation\.jsonl, line 8.*{message}"):
        load_tasks(["piqa"], folder)


@pytest.mark.parametrize(("ending", "content"), [(".xz", b"no xz"), (".gz", b"no gz"), ("", b"\xff\xfe")])
def test_a_file_that_cannot_be_read_is_named(folder, ending, content):
    (folder / "piqa" / "validation.jsonl").unlink()
    (folder / "piqa" / f"validation.jsonl{ending}").write_bytes(content)
    with pytest.raises(TaskError, match=r"validation\.jsonl\S* cannot be read"):
        load_tasks(["piqa"], folder)


def test_a_file_without_rows_is_named(tmp_path):
    write_rows(tmp_path / "piqa" / "validation.jsonl", [])
    with pytest.raises(TaskError, match=r"validation\.jsonl holds no row\."):
        load_tasks(["piqa"], tmp_path)
    write_cases(tmp_path, ["mmlu_anatomy"])
    with pytest.raises(TaskError, match=r"holds no row with the subject 'virology'"):
        load_tasks(["mmlu_virology"], tmp_path)
