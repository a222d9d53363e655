"""Recipes: what is done to a model to compress it, as llm-compressor reads it, with a few options to set."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idp.compress.layers import Layers
from idp.errors import RecipeError, SelectorError, suggest
from idp.files import read_yaml
from idp.specs import parse_spec

__all__ = ["Recipe", "find_recipe", "recipe_names"]

_FOLDER = Path(__file__).with_name("recipes")
_ENDINGS = (".yaml", ".yml")
_USUAL_GROUP = 128
_SMALLEST_GROUP = 16


@dataclass(frozen=True)
class Recipe:
    """A recipe and its options.

    Attributes:
        name: what the user called it.
        about: what it does, in a line.
        options: value of every option; empty for a file that is llm-compressor's own.
        template: stages and modifiers, with `$name` where a value is filled in.
    """

    name: str
    about: str
    options: Mapping[str, Any] = field(default_factory=dict)
    template: Mapping[str, Any] = field(default_factory=dict)

    @property
    def by_compressor(self) -> bool:
        """Whether llm-compressor carries it out; else gptqmodel does."""
        return "gptqmodel_stage" not in self.template

    def fill(self, layers: Layers, seed: int = 0) -> dict[str, Any]:
        """Return what llm-compressor reads.

        Args:
            layers: the linear layers of the model it is for.
            seed: of what is random.

        Raises:
            RecipeError: the options do not fit the model.

        Example:
            >>> filled = find_recipe("wanda:sparsity=0.6").fill(Layers("lm_head", ("q_proj",), (64,)))
            >>> filled["compression_stage"]["sparsity_modifiers"]["WandaPruningModifier"]["sparsity"]
            0.6
        """
        values = {**self.options, **_derived(self.options, layers), "seed": seed}
        filled = _filled(self.template, values)
        assert isinstance(filled, dict)  # noqa: S101  (a template is one)
        return filled


def recipe_names() -> list[str]:
    """Return the names of the recipes that come along."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def find_recipe(spec: str) -> Recipe:
    """Find a recipe by name and options, or in a file.

    Args:
        spec: `name` or `name:option=value,...` of a recipe that comes along, or the path of a YAML file: one of ours
            (`about`, `options`, `recipe`) or one that llm-compressor reads (`..._stage`).

    Raises:
        RecipeError: there is no such recipe or option, a value is out of range, or a file cannot be used.

    Example:
        >>> find_recipe("gptq:bits=3").options["bits"]
        3
    """
    if Path(spec).suffix in _ENDINGS:
        return _of_file(Path(spec), spec, {})
    try:
        name, given = parse_spec(spec)
    except SelectorError as error:
        raise RecipeError(f"cannot read the recipe {spec!r}: write name:option=value,option=value.") from error
    if name not in recipe_names():
        raise RecipeError(f"unknown recipe {name!r}. {suggest(name, recipe_names())} A YAML file works as well.")
    return _of_file(_FOLDER / f"{name}.yaml", spec, given)


def _of_file(path: Path, name: str, given: Mapping[str, Any]) -> Recipe:
    content = read_yaml(path, RecipeError)
    if not isinstance(content, dict):
        raise RecipeError(f"{path} is no recipe: it must map names to values.")
    if any(str(key).endswith("_stage") for key in content):
        return Recipe(name, f"A recipe of llm-compressor: {path.name}.", {}, content)
    if unknown := set(content) - {"about", "options", "recipe", "like"}:
        raise RecipeError(f"{path}: unknown field {sorted(unknown)[0]!r}; a recipe has about, options, recipe or like.")
    base = _base(content.get("like"), path)
    template = content.get("recipe", base.template if base else None)
    if not isinstance(template, dict):
        raise RecipeError(f"{path} says nothing to do: give it stages under `recipe`, or `like: NAME`.")
    own = content.get("options") or {}
    if not isinstance(own, dict):
        raise RecipeError(f"{path}: options must map names to values.")
    if base is None:
        return Recipe(name, str(content.get("about", "")), _options(own, given), template)
    about = str(content.get("about", base.about))
    return Recipe(name, about, _options(_options(base.options, own), given), template)


def _base(like: object, path: Path) -> Recipe | None:
    """The recipe that comes along which another one starts from."""
    if like is None:
        return None
    if like not in recipe_names():
        raise RecipeError(f"{path}: unknown recipe {like!r} to start from. {suggest(str(like), recipe_names())}")
    return find_recipe(str(like))


def _options(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options with what was given in place of the defaults; an n:m structure says how much is pruned."""
    for name in given:
        if name not in defaults:
            raise RecipeError(f"unknown option {name!r} of the recipe. {suggest(name, defaults)}")
    options = {**defaults, **given}
    for name, value in options.items():
        fits, wanted = _RANGES.get(name, (lambda value: True, ""))
        if not fits(value):
            raise RecipeError(f"option {name}={value} of the recipe is not possible: {wanted}.")
    if ":" in str(options.get("structure", "")):
        zeros, of = map(int, options["structure"].split(":"))
        if given.get("sparsity", zeros / of) != zeros / of:
            raise RecipeError(f"structure={zeros}:{of} prunes {zeros / of:.0%}; leave sparsity out.")
        options["sparsity"] = zeros / of
    options["symmetric"] = str(options.get("symmetric", False)).lower() == "true"
    return {name: value for name, value in options.items() if name in defaults}


def _is_structure(value: Any) -> bool:
    zeros, colon, of = str(value).partition(":")
    return value == "unstructured" or bool(colon and zeros.isdigit() and of.isdigit() and 0 < int(zeros) < int(of))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "bits": (lambda value: _whole(value) and 2 <= value <= 8, "use 2 to 8"),
    "group": (lambda value: value == "auto" or (_whole(value) and value >= 0), "use auto, 0 (a scale a row) or a size"),
    "symmetric": (lambda value: str(value).lower() in ("true", "false"), "use true or false"),
    "sparsity": (lambda value: isinstance(value, (int, float)) and 0 < value < 1, "use a share between 0 and 1"),
    "structure": (_is_structure, "use unstructured, or zeros:of such as 2:4"),
    "iterations": (lambda value: _whole(value) and value > 0, "use 1 or more"),
    "rate": (lambda value: value == "auto" or (isinstance(value, (int, float)) and value > 0), "use auto or a rate"),
    "init": (lambda value: value in ("min_max", "searched"), "use min_max or searched"),
}


def _derived(options: Mapping[str, Any], layers: Layers) -> dict[str, Any]:
    """What templates name besides options: the weights' scheme, masks, and what is left alone."""
    derived: dict[str, Any] = {"ignore": [_pattern(layers.head)]}
    if "structure" in options:
        derived["mask"] = _mask(options["structure"], layers)
    if options.get("rate") == "auto":
        derived["rate"] = None
    if "bits" in options:
        if layers.unpackable:
            raise RecipeError(
                f"the model's layers are {layers.unpackable}, which compressed-tensors does not pack: it can be pruned "
                "(magnitude, wanda, sparsegpt), and not quantised."
            )
        size = _group_size(options.get("group", "auto"), layers)
        derived |= {"strategy": "group" if size else "channel", "size": size or None}
        derived["weights"] = {
            "num_bits": options["bits"],
            "type": "int",
            "symmetric": options.get("symmetric", False),
            "strategy": derived["strategy"],
            "group_size": derived["size"],
        }
    return derived


def _pattern(name: str) -> str:
    """What llm-compressor finds a layer by; its pruning puts a dot behind the names of layers that are targets."""
    return rf"re:{re.escape(name)}\.?$"


def _mask(structure: str, layers: Layers) -> str:
    """The structure as llm-compressor writes it."""
    if structure == "unstructured":
        return "0:0"
    if math.gcd(*layers.widths) % int(structure.partition(":")[2]):
        raise RecipeError(f"structure={structure} does not divide the model's widths ({_listed(layers)}).")
    return structure


def _listed(layers: Layers) -> str:
    return ", ".join(map(str, sorted(set(layers.widths))))


def _group_size(wanted: int | str, layers: Layers) -> int:
    """Weights that share a scale; 0 for a whole row. `auto` takes 128, or less where 128 does not divide the widths."""
    common = math.gcd(*layers.widths)
    largest = next((size for size in (_USUAL_GROUP, 64, 32, _SMALLEST_GROUP) if common % size == 0), 0)
    if wanted == "auto":
        return largest
    if wanted and common % int(wanted):
        raise RecipeError(
            f"groups of {wanted} do not divide the model's widths ({_listed(layers)}); use group={largest}."
        )
    return int(wanted)


def _filled(part: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(part, dict):
        return {key: _filled(value, values) for key, value in part.items()}
    if isinstance(part, list):
        return [_filled(value, values) for value in part]
    if isinstance(part, str) and part.startswith("$"):
        if part[1:] not in values:
            raise RecipeError(f"the recipe asks for {part}, which no option gives. {suggest(part[1:], values)}")
        return values[part[1:]]
    return part
