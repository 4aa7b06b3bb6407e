"""The grammar of recipes: fences, arithmetic, variables, stages, and errors that name line and nearest name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubcache.errors import BadConfig
from hubcache.train.sparse.recipe import (
    ConstantPruningModifier,
    DistillationModifier,
    EpochRangeModifier,
    GlobalMagnitudePruningModifier,
    GMPruningModifier,
    LegacyQuantizationModifier,
    MagnitudePruningModifier,
    QuantizationModifier,
    Recipe,
    SetLearningRateModifier,
    compose,
    parse_recipe,
    read_recipe,
)

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


@pytest.mark.parametrize("suffix", ["yaml", "YAML", "yml"])
def test_a_yaml_file_is_read_whatever_its_ending(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"r.{suffix}"
    path.write_text("a: 2\n" + RANGE)
    assert read_recipe(path).max_epochs == 2


@pytest.mark.parametrize("fence", ["---", "+++"])
def test_a_raw_text_may_have_fences(fence: str) -> None:
    assert parse_recipe(f"words\n{fence}\na: 2\n{RANGE}{fence}\nwords: [").max_epochs == 2


def test_windows_line_ends_change_nothing() -> None:
    text = f"words\n---\na: 2\n{RANGE}---\n"
    assert parse_recipe(text.replace("\n", "\r\n"), fenced=True) == parse_recipe(text, fenced=True)


def test_a_markdown_file_without_fences_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.md"
    path.write_text("a: 2\n" + RANGE)
    with pytest.raises(BadConfig, match="no recipe between fences"):
        read_recipe(path)


def test_a_fence_inside_a_line_is_none() -> None:
    with pytest.raises(BadConfig):
        parse_recipe(f"see ---\na: 2\n{RANGE}---\n", fenced=True)


@pytest.mark.parametrize("name", ["recipe.txt", "recipe.json", "recipe"])
def test_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a: 2\n" + RANGE)
    with pytest.raises(BadConfig):
        read_recipe(tmp_path / name)


def test_one_modifier_alone_is_a_recipe() -> None:
    assert parse_recipe("!EpochRangeModifier\nstart_epoch: 0.0\nend_epoch: 2.0\n").max_epochs == 2


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("7 // 2 + 7 % 4", 6),
        ("2 ** 3 / 4", 2),
        ("-2 + 5", 3),
        ("- -3", 3),
        ("+4", 4),
        ("max(1, 2, 3) + min(4, 5)", 7),
        ("round(2.6) + int(1.9) + abs(-2)", 6),
        ("float(3)", 3),
        ("round(1.26, 1) * 10", 13),
    ],
)
def test_arithmetic_computes(expression: str, value: float) -> None:
    recipe = parse_recipe(f"a: eval({expression})\n{RANGE}")
    assert recipe.modifiers[0].end_epoch == pytest.approx(value)


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "9.0**9**9",
        "2**-1.5**99999",
        "(-8) ** 0.5",
        "1 / 0",
        "1 % 0",
        "0 ** -1",
        "10 ** 31",
        "1e400",
        "round(1, -10 ** 9)",
        "__import__('os')",
        "().__class__",
        "[1][0]",
        "'a' * 9",
        "1 if 1 else 2",
        "lambda: 1",
        "1 < 2",
        "not 1",
        "~1",
        "1 << 2",
        "max()",
        "max(1)",
        "abs(1, 2)",
        "round(number=1)",
        "max(*a)",
        "sum(1, 2)",
        "1j",
        "a := 1",
        "1, 2",
        "(" * 300 + "1" + ")" * 300,
        "-" * 900 + "1",
        "1" + "+1" * 490,
        "9" * 900,
        "b" * 2000,
        "",
        "nothing + 1",
        "nothing",
        "f'{1}'",
        "True and 1",
    ],
)
def test_what_is_no_arithmetic_is_refused(expression: str) -> None:
    with pytest.raises(BadConfig, match="line 1"):
        parse_recipe(f"a: {json.dumps(f'eval({expression})')}\n{RANGE}")


def test_variables_may_stand_in_any_order() -> None:
    chain = "".join(f"v{index}: eval(v{index + 1} + 1)\n" for index in range(300))
    assert parse_recipe(f"a: eval(v0)\n{chain}v300: 2\n{RANGE}").max_epochs == 302


def test_a_circle_of_variables_is_named() -> None:
    with pytest.raises(BadConfig, match=r"circle: (a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c)"):
        parse_recipe(f"a: eval(b)\nb: eval(c + 1)\nc: eval(a)\n{RANGE}")


def test_a_variable_that_names_itself_is_a_circle() -> None:
    with pytest.raises(BadConfig, match="circle: a -> a"):
        parse_recipe(f"a: eval(a + 1)\n{RANGE}")


def test_a_stage_variable_hides_the_root_one() -> None:
    rates = [each.learning_rate for each in parse_recipe(STAGED).of(SetLearningRateModifier)]
    assert rates == [0.2, 0.1]


def test_a_stage_variable_may_compute_with_the_root_one_of_its_name() -> None:
    recipe = parse_recipe(f"a: 2\none:\n  a: eval(a * 3)\n  {RANGE.replace(chr(10), chr(10) + '  ')}")
    assert recipe.max_epochs == 6


@pytest.mark.parametrize("key", ["submodules: [a]", "reduce_range: true", "weight_bits: 4", "tensorrt: false"])
def test_any_legacy_argument_makes_quantisation_the_legacy_form(key: str) -> None:
    recipe = parse_recipe(f"modifiers:\n  - !QuantizationModifier {{start_epoch: 0, {key}}}\n")
    assert isinstance(recipe.modifiers[0], LegacyQuantizationModifier)


def test_scheme_names_are_filled_in() -> None:
    recipe = parse_recipe("modifiers:\n  - !QuantizationModifier {start_epoch: 0, scheme: tensorrt}\n")
    scheme = recipe.of(QuantizationModifier)[0].scheme
    assert (scheme["input_activations"]["symmetric"], scheme["target_hardware"]) == (True, "tensorrt")


def test_an_unquoted_mask_of_two_numbers_is_read() -> None:
    pruning = "{start_epoch: 0, end_epoch: 1, init_sparsity: 0, final_sparsity: 0.5, params: [a], mask_type: 2:4}"
    assert parse_recipe(f"m_modifiers:\n  - !GMPruningModifier {pruning}\n").of(GMPruningModifier)[0].mask_type == "2:4"


def test_global_sparsity_makes_pruning_global() -> None:
    pruning = (
        "{start_epoch: 0, end_epoch: 1, init_sparsity: 0, final_sparsity: 0.5, params: [a], global_sparsity: true}"
    )
    assert parse_recipe(f"modifiers:\n  - !GMPruningModifier {pruning}\n").of(GlobalMagnitudePruningModifier)


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("modifiers:\n  - !EpochRangeModifer {start_epoch: 0, end_epoch: 1}\n", 2, "EpochRangeModifier"),
        ("modifiers:\n  - !pytorch.EpochRangeModifier {start_epoch: 0, end_epoch: 1}\n", 2, "EpochRangeModifier"),
        ("modifiers:\n  - !DistillationModifier\n      hardnes: 1\n", 3, "hardness"),
        ("modifiers:\n  - !DistillationModifier\n      hardness: soft\n", 3, ""),
        ("modifiers:\n  - !EpochRangeModifier\n      start_epoch: 0\n", 2, ""),
        ("modifiers:\n  - !EpochRangeModifier {start_epoch: 2, end_epoch: 1}\n", 2, ""),
        (
            "epochs: 3\nmodifiers:\n  - !EpochRangeModifier\n      start_epoch: 0\n      end_epoch: eval(epoch)\n",
            5,
            "epochs",
        ),
        ("modifiers:\n  - !SetLearningRateModifier {learning_rate: 2}\n", 2, ""),
        ("modifiers:\n  - !SetLearningRateModifier {learning_rate: 0}\n", 2, ""),
        ("modifiers:\n  - !ConstantPruningModifier {params: ['re:(']}\n", 2, ""),
        ("modifiers:\n  - !QuantizationModifier {start_epoch: 1, end_epoch: 3}\n", 2, ""),
        ("modifiers:\n  - !QuantizationModifier {start_epoch: 1, freeze_bn_stats_epoch: 0.5}\n", 2, ""),
        ("modifiers:\n  - !QuantizationModifier {scheme: {weight: null}}\n", 2, ""),
        ("modifiers:\n  - EpochRangeModifier\n", 1, "!Modifier"),
        ("modifiers: !EpochRangeModifier {start_epoch: 0, end_epoch: 1}\n", 1, "dash"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, ""),
        ("a: 1\nb: [\n", 3, ""),
    ],
)
def test_an_error_names_the_line_and_the_nearest_name(text: str, line: int, hint: str) -> None:
    with pytest.raises(BadConfig, match=rf"r\.yaml, line {line}: ") as caught:
        parse_recipe(text, where="r.yaml")
    assert hint in caught.value.hint


def test_a_line_is_counted_from_the_top_of_a_markdown_file() -> None:
    with pytest.raises(BadConfig, match="line 5: there is no modifier !Unknown"):
        parse_recipe("# card\n\n---\nmodifiers:\n  - !Unknown {}\n---\n", fenced=True)


def test_modifiers_beside_stages_are_refused() -> None:
    with pytest.raises(BadConfig, match="beside stages"):
        parse_recipe(STAGED + "more_modifiers:\n  - !EpochRangeModifier {start_epoch: 0, end_epoch: 1}\n")


def test_aliases_that_unfold_without_end_are_refused() -> None:
    layers = "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(12))
    with pytest.raises(BadConfig, match="aliases"):
        parse_recipe(f"a0: &a0 [1]\n{layers}{RANGE}")


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: &a {b: *a}\n", "[" * 5000, "a: " + "{b: " * 5000, "? [1]\n: 2\n"])
def test_a_text_that_holds_itself_or_nests_too_deep_is_refused(text: str) -> None:
    with pytest.raises(BadConfig):
        parse_recipe(text + RANGE)


def test_modifiers_are_found_by_class_and_subclass() -> None:
    window = {"start_epoch": 0, "end_epoch": 1, "init_sparsity": 0, "final_sparsity": 0.5, "params": "__ALL__"}
    recipe = Recipe((MagnitudePruningModifier(**window), DistillationModifier()))  # type: ignore[arg-type]  # as read
    assert recipe.of(GMPruningModifier) == recipe.modifiers[:1]


def test_a_modifier_that_does_not_fit_says_so() -> None:
    with pytest.raises(BadConfig, match="EpochRangeModifier: end_epoch: -2 is no epoch"):
        EpochRangeModifier(start_epoch=0, end_epoch=-2)


def test_constants_end_after_others() -> None:
    text = "modifiers:\n  - !ConstantPruningModifier {start_epoch: 0, params: a}\n  - !EpochRangeModifier "
    recipe = parse_recipe(text + "{start_epoch: 0, end_epoch: 9}\n")
    assert [type(each) for each in recipe.modifiers] == [EpochRangeModifier, ConstantPruningModifier]


def test_without_any_epoch_a_recipe_says_minus_one_as_the_reference_does() -> None:
    recipe = parse_recipe("modifiers:\n  - !SetLearningRateModifier {learning_rate: 0.1}\n")
    assert (recipe.max_epochs, recipe.min_epochs) == (-1, -1)


def test_a_start_at_once_is_no_first_epoch() -> None:
    once = "  - !SetLearningRateModifier {learning_rate: 0.1}\n"
    recipe = parse_recipe(f"modifiers:\n{once}  - !EpochRangeModifier {{start_epoch: 2.5, end_epoch: 4.2}}\n")
    assert (recipe.max_epochs, recipe.min_epochs) == (5, 2)


def test_composing_with_a_recipe_without_epochs_moves_nothing() -> None:
    once = parse_recipe("modifiers:\n  - !ConstantPruningModifier {params: __ALL__}\n")
    assert compose(once, parse_recipe(RANGE.replace("eval(a)", "2"))).max_epochs == 2
