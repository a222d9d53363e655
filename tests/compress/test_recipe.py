from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from idp.compress.layers import Layers
from idp.compress.recipe import find_recipe, recipe_names
from idp.errors import RecipeError

LAYERS = Layers("lm_head", ("model.layers.0.q_proj", "model.layers.0.down_proj"), (160, 432))


def weights(spec, layers=LAYERS):
    stage = find_recipe(spec).fill(layers)["compression_stage"]
    (modifier,) = stage["quantization_modifiers"].values()
    return modifier["config_groups"]["all"]["weights"]


@pytest.mark.parametrize("name", [name for name in recipe_names() if find_recipe(name).by_compressor])
def test_llm_compressor_understands_every_recipe(name):
    from idp.compress.oneshot import _read

    recipe = find_recipe(name)
    assert recipe.about.endswith(".")
    steps = _read(recipe.fill(LAYERS, seed=3))
    methods = [type(step).__name__.lower() for step in steps.modifiers]
    spoken = {"rtn": "quantization", "flexround-quick": "flexround"}.get(name, name).split("-")
    assert all(any(part in method for method in methods) for part in spoken)


def test_options_are_filled_in():
    assert weights("gptq:bits=3,group=16,symmetric=true") == {
        "num_bits": 3,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": 16,
    }
    assert weights("gptq:group=0")["strategy"] == "channel"
    modifier = find_recipe("flexround:rate=0.01,init=searched").fill(LAYERS, seed=7)
    learned = modifier["compression_stage"]["quantization_modifiers"]["FlexRoundModifier"]
    assert (learned["learning_rate"], learned["init"], learned["iterations"], learned["seed"]) == (
        0.01,
        "searched",
        5000,
        7,
    )
    assert learned["ignore"] == [r"re:lm_head\.?$"]


@pytest.mark.parametrize(
    ("widths", "size"), [((160, 432), 16), ((4096, 11008), 128), ((192, 64), 64), ((96,), 32), ((40, 24), None)]
)
def test_groups_are_128_or_what_divides_the_widths(widths, size):
    assert weights("rtn", LAYERS._replace(widths=widths))["group_size"] == size


def test_a_group_that_does_not_divide_the_widths_is_refused_with_one_that_does():
    with pytest.raises(RecipeError, match=r"groups of 64 do not divide .* \(160, 432\); use group=16"):
        weights("gptq:group=64")


def test_a_structure_says_how_much_is_pruned():
    modifier = find_recipe("wanda:structure=2:4").fill(LAYERS)["compression_stage"]["sparsity_modifiers"]
    assert modifier["WandaPruningModifier"] == {
        "sparsity": 0.5,
        "mask_structure": "2:4",
        "targets": ["Linear"],
        "ignore": [r"re:lm_head\.?$"],
    }
    assert find_recipe("sparsegpt:structure=1:4").options["sparsity"] == 0.25
    assert find_recipe("sparsegpt:structure=2:4,sparsity=0.5").options["sparsity"] == 0.5
    with pytest.raises(RecipeError, match="prunes 50%; leave sparsity out"):
        find_recipe("sparsegpt:structure=2:4,sparsity=0.7")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gtpq", "unknown recipe 'gtpq'. Did you mean 'gptq'"),
        ("", "unknown recipe ''"),
        ("gptq:bit=3", "unknown option 'bit'.*Did you mean 'bits'"),
        ("wanda:bits=3", "unknown option 'bits'.*Known: sparsity, structure"),
        ("gptq:bits=1", "bits=1 .* use 2 to 8"),
        ("gptq:bits=3.5", "use 2 to 8"),
        ("gptq:bits", "write name:option=value"),
        ("gptq:group=-1", "use auto, 0"),
        ("gptq:symmetric=maybe", "use true or false"),
        ("wanda:sparsity=1", "between 0 and 1"),
        ("wanda:sparsity=half", "between 0 and 1"),
        ("wanda:structure=4:2", "zeros:of such as 2:4"),
        ("wanda:structure=a:b", "zeros:of such as 2:4"),
        ("flexround:iterations=0", "use 1 or more"),
        ("flexround:rate=-1", "use auto or a rate"),
        ("flexround:init=best", "use min_max or searched"),
        ("nowhere.yaml", "cannot read nowhere.yaml"),
    ],
)
def test_what_cannot_be_is_one_clear_line(spec, message):
    with pytest.raises(RecipeError, match=message) as caught:
        find_recipe(spec)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30))
def test_no_text_is_more_than_an_unknown_recipe(spec):
    try:
        assert find_recipe(spec).template
    except RecipeError as error:
        assert "\n" not in str(error)


def test_a_file_of_llm_compressor_is_taken_as_it_is(tmp_path):
    content = {"my_stage": {"my_modifiers": {"GPTQModifier": {"ignore": ["lm_head"], "scheme": "W4A16"}}}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    recipe = find_recipe(str(path))
    assert recipe.fill(LAYERS) == content
    assert recipe.about == "A recipe of llm-compressor: mine.yaml."


def test_a_file_may_start_from_a_recipe_that_comes_along(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text("like: gptq\noptions: {bits: 3}\n")
    assert find_recipe(str(path)).about == find_recipe("gptq").about
    path.write_text("about: Mine.\nlike: gptq\noptions: {bits: 3}\n")
    assert find_recipe(str(path)).options == {"bits": 3, "group": "auto", "symmetric": False}
    assert find_recipe(str(path)).about == "Mine."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n", "must map names to values"),
        ("about: nothing\n", "says nothing to do"),
        ("like: gtpq\n", "Did you mean 'gptq'"),
        ("like: gptq\nbits: 3\n", "unknown field 'bits'"),
        ("like: mine.yaml\n", "unknown recipe 'mine.yaml' to start from"),
        ("like: gptq\noptions: [1]\n", "options must map names"),
        ("like: gptq\noptions: {foo: 1}\n", "unknown option 'foo'"),
        ("like: gptq\noptions: {bits: 99}\n", "use 2 to 8"),
        ("{", "is not YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=message):
        find_recipe(str(path))


def test_a_template_may_only_ask_for_what_there_is(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("options: {bits: 3, group: 0}\nrecipe: {a_stage: {b_modifiers: {C: {x: $bites}}}}\n")
    with pytest.raises(RecipeError, match=r"asks for \$bites.*Did you mean 'bits'"):
        find_recipe(str(path)).fill(LAYERS)


def test_aliases_that_are_made_by_a_recipe_name_one_that_there_is():
    from idp.model.aliases import aliases

    recipes = [spec.recipe for spec in aliases().values() if spec.recipe is not None]
    assert recipes and all(find_recipe(recipe).options for recipe in recipes)


def test_a_structure_that_does_not_divide_the_widths_is_refused():
    with pytest.raises(RecipeError, match=r"structure=3:5 does not divide .* \(160, 432\)"):
        find_recipe("wanda:structure=3:5").fill(LAYERS)
