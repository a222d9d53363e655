"""`idp list`: what can be named on the command line."""

from __future__ import annotations

import json as jsonlib
from enum import Enum
from typing import Annotated, Any

import typer

from idp.cli.errors import guarded
from idp.cli.options import Bank, Debug, Json
from idp.cli.quiet import hush

Row = dict[str, Any]


class Kind(str, Enum):
    """What can be listed."""

    MODELS = "models"
    SELECTORS = "selectors"
    SUITES = "suites"
    TASKS = "tasks"
    ARMS = "arms"
    PROMPTS = "prompts"
    RECIPES = "recipes"


@guarded()
def list_command(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    bank: Bank = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List models, selectors, suites, tasks, arms, recipes, or a bank's prompts (--bank; else the text bank)."""
    hush(debug)
    if bank is not None and kind is not Kind.PROMPTS:
        raise typer.BadParameter("--bank belongs to: idp list prompts", param_hint="--bank")
    from idp.cli.tables import print_rows

    rows = prompts(bank) if kind is Kind.PROMPTS else _LISTS[kind]()
    typer.echo(jsonlib.dumps(rows, indent=2, ensure_ascii=False)) if json else print_rows(rows)


def models() -> list[Row]:
    """Aliases of models."""
    from idp.cli.models import model_rows

    return model_rows()


def selectors() -> list[Row]:
    """Ways to choose a prompt."""
    from idp.select.registry import get_selector, selector_names

    made = [get_selector(name) for name in selector_names()]
    return [{"name": each.name, "learns from": each.needs, "about": _first_line(type(each).__doc__)} for each in made]


def suites() -> list[Row]:
    """Named lists of tasks."""
    from idp.evaluate.tasks import suites as known

    listed = known()["suites"].items()
    return [{"name": name, "about": suite["about"], "tasks": ", ".join(suite["tasks"])} for name, suite in listed]


def tasks() -> list[Row]:
    """Suites and the tasks that come with their data; lm-eval's own tasks can be named too."""
    from idp.evaluate.tasks import expand, packaged

    rows = [
        {"name": suite["name"], "kind": "suite", "about": f"{suite['about']}: {suite['tasks']}"} for suite in suites()
    ]
    about = {
        **dict.fromkeys(expand(["atlas"]), ""),
        **{name: f"lm-eval's {of.task}" for name, of in packaged().items()},
    }
    return [*rows, *({"name": name, "kind": "task", "about": text} for name, text in about.items())]


def arms() -> list[Row]:
    """Rows of an evaluation."""
    from idp.evaluate.arms import ARMS, MIXTURES, about

    return [{"name": name, "about": about(name)} for name in (*ARMS, *MIXTURES)]


def recipes() -> list[Row]:
    """Ways to compress a model."""
    from idp.compress.recipe import find_recipe, recipe_names

    found = [find_recipe(name) for name in recipe_names()]
    return [
        {"name": each.name, "options": ",".join(f"{k}={v}" for k, v in each.options.items()), "about": each.about}
        for each in found
    ]


def prompts(folder: str | None) -> list[Row]:
    """Prompts of a bank."""
    from idp.cli.prompted import open_bank

    return [
        {
            "name": prompt.name,
            "kind": prompt.provenance.get("kind", prompt.kind),
            "text": f"{prompt.shape[0]} vectors" if prompt.shape is not None else prompt.text,
        }
        for prompt in open_bank(folder)
    ]


_LISTS = {
    Kind.MODELS: models,
    Kind.SELECTORS: selectors,
    Kind.SUITES: suites,
    Kind.TASKS: tasks,
    Kind.ARMS: arms,
    Kind.RECIPES: recipes,
}


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]
