"""Recipes against what SparseML made of the same files: arguments, order, epochs, refusals, overrides, metadata."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from hubcache.errors import BadConfig
from hubcache.train.sparse.recipe import (
    LegacyQuantizationModifier,
    Modifier,
    Recipe,
    compose,
    parse_arguments,
    parse_recipe,
    read_recipe,
    with_metadata,
)
from tests.support.goldens import golden

FIXED = {
    "27_eval_unary_minus_ERROR.yaml": 3,
    "28_stage_var_expression_over_global_ERROR.yaml": 6,
}
"""What the reference fails at by defect, and how many epochs the recipe means."""

STAGED = """
shared: 3
lr: 0.1
sparse_stage:
  lr: 0.2
  a_modifiers:
    - !EpochRangeModifier {start_epoch: 0.0, end_epoch: eval(shared)}
    - !SetLearningRateModifier {start_epoch: 0.0, learning_rate: eval(lr)}
quant_stage:
  start: eval(shared)
  b_modifiers:
    - !EpochRangeModifier {start_epoch: eval(start), end_epoch: eval(shared * 2)}
    - !SetLearningRateModifier {start_epoch: eval(start), learning_rate: eval(lr)}
"""
RANGE = "modifiers:\n  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: eval(a)}\n"


def expected() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(golden("sparse/recipes_expected.json").read_text())
    return told


def files() -> list[str]:
    try:
        return sorted(path.name for path in golden("sparse/recipes").iterdir())
    except pytest.skip.Exception:
        return []


def shown(modifier: Modifier) -> dict[str, Any]:
    """A modifier as the golden writes it: JSON's keys are texts, absent arguments are left out."""
    arguments: dict[str, Any] = json.loads(json.dumps(modifier.arguments()))
    return {"class": modifier.yaml_tag(), "props": arguments}


def theirs(modifier: dict[str, Any]) -> dict[str, Any]:
    props = {name: value for name, value in modifier["props"].items() if name != "global_sparsity"}
    return {"class": modifier["class"], "props": props}


def agrees(recipe: Recipe, result: dict[str, Any]) -> None:
    stages = {stage.name: [shown(each) for each in stage.modifiers] for stage in recipe.stages}
    if "stages_in_order" in result:
        assert stages == {name: [theirs(each) for each in held] for name, held in result["stages_in_order"].items()}
    else:
        assert [shown(each) for each in recipe.modifiers] == [theirs(each) for each in result["modifiers_in_order"]]
    assert (recipe.max_epochs, recipe.min_epochs) == (result["max_epochs"], result["min_epochs"])
    assert recipe.variables == result["root_variables_after_eval"]


@pytest.mark.parametrize("name", files())
def test_a_recipe_reads_as_the_reference_reads_it(name: str) -> None:
    result = expected()["recipes"][name]
    path = golden(f"sparse/recipes/{name}")
    if result["ok"]:
        agrees(read_recipe(path), result)
    elif name in FIXED:
        assert read_recipe(path).max_epochs == FIXED[name]
    else:
        with pytest.raises(BadConfig, match=re.escape(name)):
            read_recipe(path)


@pytest.mark.parametrize("name", [name for name in files() if "ERROR" not in name or name in FIXED])
def test_a_written_recipe_reads_back_as_the_same(name: str) -> None:
    recipe = read_recipe(golden(f"sparse/recipes/{name}"))
    assert parse_recipe(recipe.to_yaml()) == recipe


@pytest.mark.parametrize(
    "case",
    [
        "json string",
        "csv string",
        "csv colon",
        "dict",
        "unknown variable",
        "csv malformed",
        "alias keeps the old value, eval() takes the new one",
        "bare list recipe",
        "empty string",
        "markdown",
    ],
)
def test_setting_variables_gives_what_the_reference_gives(case: str) -> None:
    told = expected()["recipe_args"][case]
    path = golden(f"sparse/recipes/{told['recipe']}")
    if told["result"]["ok"]:
        agrees(read_recipe(path, arguments=told["recipe_args"]), told["result"])
    else:
        with pytest.raises(BadConfig):
            read_recipe(path, arguments=told["recipe_args"])


def test_a_variable_that_is_set_is_set_in_every_stage() -> None:
    told = expected()["recipe_args"]["staged: replaces in every stage"]["result"]
    agrees(parse_recipe("version: 1.1.0\n" + STAGED, arguments={"lr": 0.5}), told)


@pytest.mark.parametrize("given", list(expected()["parse_recipe_variables"]) if files() else [])
def test_arguments_parse_as_the_reference_parses_them(given: str) -> None:
    result = expected()["parse_recipe_variables"][given]
    value = {"None": None, "{'a': 1}": {"a": 1}}.get(given, given[1:-1])
    if isinstance(result, str):
        with pytest.raises(BadConfig):
            parse_arguments(value)
    else:
        assert parse_arguments(value) == result


def test_metadata_is_kept() -> None:
    told = expected()["metadata"]["no metadata arg"]
    recipe = read_recipe(golden(f"sparse/recipes/{told['recipe']}"))
    assert recipe.metadata == told["result"]["metadata"]["__metadata__"]


def test_metadata_can_be_replaced() -> None:
    recipe = with_metadata(parse_recipe("a: 2\n__metadata__: {level: 2}\n" + RANGE), {"level": 3})
    assert parse_recipe(recipe.to_yaml()).metadata == {"level": 3}


def test_a_saved_recipe_is_written_with_the_content_the_reference_gives_it() -> None:
    class Plain(yaml.SafeLoader):
        """Reads tags as their arguments."""

    Plain.add_multi_constructor("!", lambda loader, tag, node: {tag: loader.construct_mapping(node, deep=True)})
    text = golden("sparse/trainer/recipe_saved_single.yaml").read_text()
    assert yaml.load(parse_recipe(text).to_yaml(), Plain) == yaml.load(text, Plain)


def test_a_composed_recipe_that_the_reference_cannot_read_is_read() -> None:
    recipe = read_recipe(golden("sparse/trainer/recipe_saved_composed.yaml"))
    quantisation = recipe.of(LegacyQuantizationModifier)[0]
    assert (recipe.max_epochs, [stage.name for stage in recipe.stages]) == (4, ["stage_0", "stage_1"])
    assert (quantisation.start_epoch, quantisation.end_epoch) == (1.0, -1.0)


def test_composing_gives_what_the_reference_composes() -> None:
    told = read_recipe(golden("sparse/trainer/recipe_saved_composed.yaml"))
    first = read_recipe(golden("sparse/trainer/recipe_saved_single.yaml"))
    then = parse_recipe(
        "modifiers:\n  - !EpochRangeModifier {start_epoch: 0, end_epoch: 1}\n"
        "  - !ConstantPruningModifier {start_epoch: 0, params: __ALL_PRUNABLE__}\n"
        "  - !SetLearningRateModifier {start_epoch: 0, learning_rate: 0.0001}\n"
    )
    ours = compose(first, then)
    assert [(type(each), each.start_epoch, each.end_epoch) for each in ours.modifiers] == [
        (type(each), each.start_epoch, each.end_epoch) for each in told.modifiers
    ]
    assert ours.metadata == told.metadata


def test_a_composed_recipe_reads_back_as_the_same() -> None:
    one = read_recipe(golden("sparse/recipes/01_seed_short.yaml"))
    thrice = compose(compose(one, one), one)
    assert parse_recipe(thrice.to_yaml()) == thrice
    assert len(thrice.stages) == 3


def test_a_recipe_that_is_composed_later_has_its_observers_moved_too() -> None:
    one = read_recipe(golden("sparse/recipes/01_seed_short.yaml"))
    later = compose(one, one).of(LegacyQuantizationModifier)[1]
    assert (later.start_epoch, later.disable_quantization_observer_epoch) == (4.0, 5.0)
