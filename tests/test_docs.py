"""The code in the documentation runs."""

from __future__ import annotations

import re
from pathlib import Path

import idp
from idp.bank.bank import PromptBank
from idp.evaluate.local.columns import SOURCES
from idp.evaluate.tasks import packaged, suites
from idp.model.aliases import read_aliases, resolve
from idp.model.info import measured, model_info

ROOT = Path(__file__).parents[1]


def test_the_recipe_for_a_bank_makes_one(tiny_lm, tmp_path, monkeypatch):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/tuning.md").read_text(), re.DOTALL)[1]
    code, count = re.subn(r"steps=\d+", "steps=2", code)
    assert count == 2
    lm = tiny_lm()
    monkeypatch.setattr(idp, "load", lambda name: lm)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "tuning.md", "exec"), {})  # noqa: S102
    bank = PromptBank.load("my-bank")
    assert bank.names == ("static", "sums", "orders")
    assert "router" in bank.selectors
    bank.require(lm.fingerprint)


def test_the_command_as_a_call_builds_a_bank(tmp_path, monkeypatch):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/tuning.md").read_text(), re.DOTALL)[0]
    code = code.replace("steps=600, atlas=400", "steps=2, atlas=40")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "tuning.md", "exec"), {})  # noqa: S102
    assert PromptBank.load("my-run/bank").names == ("static",)


def test_the_readme_wraps_the_embedded_model(capsys):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    answer, chosen = capsys.readouterr().out.rsplit(maxsplit=1)
    assert "eldest child of the Stuvurns?\nAnswer: " in answer
    assert -1 <= int(chosen) < len(PromptBank.load("tuned/sparse"))


def test_the_page_on_banks_calculates_with_prompts(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/banks.md").read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "PromptVector" in block)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "banks.md", "exec"), {})  # noqa: S102
    made, sparse = PromptBank.load("my-vectors"), PromptBank.load("tuned/sparse")
    assert made.fingerprint == sparse.fingerprint
    assert made[0].embedding.shape == sparse["static"].embedding.shape


def test_banks_go_out_and_come_in(tmp_path, monkeypatch):
    exchange, prefixes = re.findall(r"```python\n(.*?)```", (ROOT / "docs/banks-exchange.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(exchange, "banks-exchange.md", "exec"), names)  # noqa: S102
    bank, shipped = PromptBank.load("my-bank"), PromptBank.load("tuned/sparse")
    assert {prompt.digest for prompt in bank} == {prompt.digest for prompt in shipped}
    assert bank.fingerprint == shipped.fingerprint
    assert all(name.startswith("domain-") for name in PromptBank.load("my-texts.yaml").names)
    exec(compile(prefixes, "banks-exchange.md", "exec"), names)  # noqa: S102
    assert names["model"].bank.names == bank.names


def test_the_page_on_models_shows_aliases_that_are_read(tmp_path):
    (code,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/models.md").read_text(), re.DOTALL)
    (tmp_path / "models.yaml").write_text(code)
    ready, made, on_first_use, packaged = read_aliases(tmp_path / "models.yaml").values()
    assert (ready.source, ready.dense) == ("org/model-GPTQ", "org/model")
    assert made.recipe == "sparsegpt:sparsity=0.5"
    assert (on_first_use.variant, on_first_use.dense) == ("rtn:bits=4,group=128", "org/model")
    assert packaged.package.requirement == "my-package==1.0"


def test_the_page_on_models_shows_what_the_command_prints():
    page, lm = (ROOT / "docs/models.md").read_text(), idp.load("reference-gptq", "cpu")
    info = measured(model_info(resolve("reference-gptq")), lm)
    assert f"compression: {info.describe()}\n" in page
    assert f"tokenizer {info.fingerprint.tokenizer}, weights {info.fingerprint.weights}\n" in page
    assert f"in memory: {info.memory_bytes / 1e6:.1f} MB, float32\n" in page


def test_the_page_on_compressing_names_every_recipe_and_option():
    from idp.compress.recipe import find_recipe, recipe_names

    page = (ROOT / "docs/compress.md").read_text()
    for name in recipe_names():
        assert f"`{name}`" in page
        for option in find_recipe(name).options:
            assert re.search(rf"`{option}[`=]", page), option


def test_the_page_on_suites_tells_of_every_task_where_its_data_lie():
    page, known = (ROOT / "docs/suites.md").read_text(), suites()["suites"]
    rows = dict(re.findall(r"^\| `(\w+)`.*? \| `(\w+)`: ", page, re.MULTILINE))
    groups = {"blimp": "blimp", "mmlu": "mmlu", "bbh_zeroshot": "bbh"}
    listed = {task: task for task in known["paper"]["tasks"] + known["wide"]["tasks"]}
    listed |= {name: source.task for name, source in packaged().items()}
    assert rows == {name: groups.get(task) or SOURCES[task].folder for name, task in listed.items()}
