"""Text prompts in YAML: read as they are, and a mistake is found by file and entry."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.bank import Prompt, PromptBank, load_text_prompts, text_bank
from idp.bank.text import KINDS, save_text_prompts
from idp.errors import BankError, OutputError

GOOD = '- {name: brief, kind: instruction, text: "Be brief. ", note: short}\n'


def test_file(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(GOOD)
    (prompt,) = load_text_prompts(file)
    assert prompt.text == "Be brief. "
    assert dict(prompt.provenance) == {"kind": "instruction", "note": "short", "source": "some.yaml"}


def test_folder_is_read_in_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(GOOD)
    (tmp_path / "a.yaml").write_text(GOOD.replace("brief", "first"))
    (tmp_path / "notes.txt").write_text("not a prompt")
    assert [prompt.name for prompt in load_text_prompts(tmp_path)] == ["first", "brief"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a list"),
        ("name: brief", "not a list"),
        ("- [", "not YAML"),
        ("- hello", "entry 1: expected"),
        (GOOD + "- {name: b, kind: domain}", "entry 2: text missing"),
        ("- {name: b, kind: domain, text: x, tetx: y}", "entry 1: unknown field 'tetx'. Did you mean 'text'"),
        ("- {name: b, kind: domian, text: x}", "entry 1: unknown kind 'domian'. Did you mean 'domain'"),
        ("- {name: b, kind: domain, text: 3}", "entry 1: text is 3"),
        ('- {name: b, kind: domain, text: " "}', "entry 1: the text of prompt 'b' is empty"),
        ('- {name: "", kind: domain, text: x}', "entry 1: a prompt needs a name"),
        (GOOD + GOOD, "'brief' is already in"),
        ("- {name: b, kind: domain, text: x, 3: y}", "unknown field '3'"),
    ],
)
def test_mistakes_name_file_and_entry(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(text)
    with pytest.raises(BankError, match=message) as caught:
        load_text_prompts(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="neither"):
        load_text_prompts(tmp_path / "nowhere")
    with pytest.raises(BankError, match=r"no \.yaml"):
        load_text_prompts(tmp_path)


def test_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BankError, match="cannot read"):
        load_text_prompts(tmp_path)


def test_shipped_bank() -> None:
    bank = text_bank()
    assert len(bank) >= 24
    assert bank.fingerprint is None
    assert {prompt.provenance["kind"] for prompt in bank} == set(KINDS)


def test_a_folder_of_yaml_is_a_bank(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("- {name: a, text: 'Be brief. ', kind: instruction}")
    bank = PromptBank.load(tmp_path)
    assert bank.names == ("a",)
    bank.save(tmp_path)  # from now on the folder is what was saved
    (tmp_path / "mine.yaml").write_text("- {name: b, text: 'Be long. ', kind: instruction}")
    assert PromptBank.load(tmp_path).names == ("a",)


def test_shipped_banks_are_found_by_name_unless_a_path_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert PromptBank.load("text").names == text_bank().names
    assert PromptBank.load("tuned/sparse").fingerprint is not None
    PromptBank([Prompt("mine", text="Be brief. ")]).save(tmp_path / "text")
    assert PromptBank.load("text").names == ("mine",)
    with pytest.raises(BankError, match="no prompt bank at tuned/sprase"):
        PromptBank.load("tuned/sprase")


_TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from(" \n\t\r'\"|:#-\x85\u2028\u2029\ufeff"), max_size=30)
_VISIBLE = _TEXT.filter(str.strip)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(_VISIBLE, _VISIBLE, st.sampled_from(KINDS), st.none() | _TEXT),
        min_size=1,
        max_size=3,
        unique_by=lambda entry: entry[0],
    )
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, str, str, str | None]]
) -> None:
    prompts = [
        Prompt(name, text=text, provenance={"kind": kind} | ({} if note is None else {"note": note}))
        for name, text, kind, note in entries
    ]
    read = load_text_prompts(save_text_prompts(prompts, tmp_path_factory.mktemp("yaml") / "mine.yaml"))
    expected = [(prompt.name, prompt.text, {**prompt.provenance, "source": "mine.yaml"}) for prompt in prompts]
    assert [(prompt.name, prompt.text, dict(prompt.provenance)) for prompt in read] == expected


def test_the_shipped_prompts_survive(tmp_path: Path) -> None:
    read = load_text_prompts(save_text_prompts(text_bank(), tmp_path / "all.yaml"))
    assert [(p.name, p.text, p.provenance["kind"]) for p in read] == [
        (p.name, p.text, p.provenance["kind"]) for p in text_bank()
    ]


def test_several_lines_are_written_as_they_look(tmp_path: Path) -> None:
    prompts = [
        Prompt("lines", text="Question: why?\n  Answer: so.\n\n", provenance={"note": "Two lines.", "seed": 3}),
        Prompt("space", text="Answer: "),
        Prompt("umlaut", text="Größe: " + "lang " * 30 + "Ende."),
    ]
    written = save_text_prompts(prompts, tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert written == (
        "- name: lines\n  kind: instruction\n  note: Two lines.\n  text: |+\n    Question: why?\n      Answer: so.\n\n"
        "- name: space\n  kind: instruction\n  text: 'Answer: '\n"
        f"- name: umlaut\n  kind: instruction\n  text: 'Größe: {'lang ' * 30}Ende.'\n"
    )


def test_a_kind_that_yaml_has_no_word_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_text_prompts([Prompt("odd", text="x", provenance={"kind": "poem"})], tmp_path / "mine.yaml")
    assert load_text_prompts(tmp_path / "mine.yaml")[0].provenance["kind"] == "instruction"
    assert "'odd' is of kind 'poem'" in caplog.text


def test_what_cannot_be_written(tmp_path: Path) -> None:
    good, file = Prompt("good", text="Be good. "), tmp_path / "mine.yaml"
    with pytest.raises(BankError, match="'vectors' is soft"):
        save_text_prompts([good, Prompt("vectors", embedding=torch.zeros(2, 3))], file)
    with pytest.raises(BankError, match="'good'"):
        save_text_prompts([good, good], file)
    with pytest.raises(BankError, match="at least one"):
        save_text_prompts([], file)
    assert not file.exists()


def test_a_file_that_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    good, file = Prompt("good", text="Be good. "), tmp_path / "mine.yaml"
    file.write_text("kept")
    with pytest.raises(OutputError, match="exists already"):
        save_text_prompts([good], file)
    assert file.read_text() == "kept"
    save_text_prompts([good], file, overwrite=True)
    assert load_text_prompts(file)[0].name == "good"
