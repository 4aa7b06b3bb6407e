"""Recipes out of any text: a Recipe or BadConfig, in bounded time; what is written reads back."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubcache.errors import BadConfig
from hubcache.train.sparse.recipe import (
    ConstantPruningModifier,
    DistillationModifier,
    EpochRangeModifier,
    GMPruningModifier,
    LearningRateFunctionModifier,
    LegacyQuantizationModifier,
    Modifier,
    QuantizationModifier,
    Recipe,
    SetLearningRateModifier,
    compose,
    parse_arguments,
    parse_recipe,
)
from hubcache.train.sparse.recipe import values as readers
from hubcache.train.sparse.recipe.modifiers import MODIFIERS
from hubcache.train.sparse.recipe.plan import ordered
from hubcache.train.sparse.recipe.words import describe

TAGS = sorted({kind.yaml_tag() for kind in MODIFIERS})
ARGUMENTS = sorted({name for kind in MODIFIERS for name in kind.__dataclass_fields__})
# One a line: values that YAML, the evaluator and the readers could stumble over.
SCALARS = """0
1
-1
0.5
1e-4
2:4
1_0
0o7
0x_
true
null
.nan
-.inf
eval(a)
eval(b*2)
eval(9**9**9)
*x
&x
[]
{}
[0]
['a']
{0.5: [a]}
{weights: {num_bits: 4}}
linear
__ALL__
re:(
2001-01-01
2001-99-99
!!int
!!bool x
!!timestamp y
!!binary =
=
<<
!
!EpochRangeModifier
!!python/name:os.system
"\\ud800"
""".splitlines()
EXAMPLES = int(os.environ.get("HUBCACHE_FUZZ", "150"))

scalars = st.one_of(
    st.sampled_from(SCALARS),
    st.text(max_size=8),
    st.integers().map(str),
    st.floats().map(repr),
)
lines = st.one_of(
    st.builds(lambda tag: f"  - !{tag}", st.sampled_from([*TAGS, "Nope", "pytorch.X", "!map"])),
    st.builds(lambda name, value: f"      {name}: {value}", st.sampled_from(ARGUMENTS), scalars),
    st.builds(
        lambda name, value: f"{name}: {value}", st.sampled_from(["a", "b", "__metadata__", "modifiers"]), scalars
    ),
    st.sampled_from(
        ["modifiers:", "one:", "  two_modifiers:", "    - !EpochRangeModifier", "---", "+++", "<<: *x", "{", "]"]
    ),
    st.text(max_size=12),
)
names = st.lists(st.text(min_size=1, max_size=6), max_size=3)
epochs = st.floats(0, 50, allow_subnormal=False)
share = st.floats(0, 1)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=6,
)
modifiers = st.one_of(
    st.builds(EpochRangeModifier, start_epoch=epochs, end_epoch=st.just(-1) | st.floats(50, 90)),
    st.builds(SetLearningRateModifier, start_epoch=epochs, learning_rate=st.floats(1e-9, 1)),
    st.builds(
        LearningRateFunctionModifier,
        start_epoch=epochs,
        end_epoch=st.floats(51, 99),
        lr_func=st.sampled_from(["linear", "cosine", "cyclic_linear"]),
        init_lr=share,
        final_lr=share,
    ),
    st.builds(
        ConstantPruningModifier, start_epoch=epochs, params=st.text(min_size=1, max_size=6).map(lambda t: "p" + t)
    ),
    st.builds(
        GMPruningModifier,
        start_epoch=epochs,
        end_epoch=st.floats(51, 99),
        init_sparsity=share | st.just("__FROM_PARAM__"),
        final_sparsity=st.dictionaries(share, st.lists(st.just("a"), max_size=2), min_size=1, max_size=2),
        params=st.just([]),
        mask_type=st.sampled_from(["2:4", "block4", [1, 4], "unstructured"]),
    ),
    st.builds(LegacyQuantizationModifier, start_epoch=epochs, submodules=st.none() | names, reduce_range=st.booleans()),
    st.builds(QuantizationModifier, start_epoch=epochs, ignore=names, scheme=st.sampled_from(["default", "tensorrt"])),
    st.builds(DistillationModifier, start_epoch=st.just(-1) | epochs, distill_output_keys=st.none() | names),
)
recipes = st.builds(
    lambda held, metadata: Recipe(ordered(held), readers.mapping(metadata)),
    st.lists(modifiers, min_size=1, max_size=4),
    st.dictionaries(st.text(min_size=1, max_size=6), plain, max_size=3),
)


def tried(text: str, **options: Any) -> None:
    with contextlib.suppress(BadConfig):
        recipe = parse_recipe(text, **options)
        assert parse_recipe(recipe.to_yaml()) == recipe
        assert all(describe(each) for each in recipe.modifiers)


@settings(max_examples=EXAMPLES, deadline=2000)
@given(st.lists(lines, max_size=14), st.booleans())
def test_any_lines_give_a_recipe_or_are_refused(held: list[str], fenced: bool) -> None:
    tried("\n".join(held), fenced=fenced)


@settings(max_examples=EXAMPLES, deadline=2000)
@given(st.sampled_from(TAGS), st.dictionaries(st.sampled_from(ARGUMENTS), scalars, max_size=8))
def test_any_arguments_give_a_recipe_or_are_refused(tag: str, arguments: dict[str, str]) -> None:
    held = "".join(f"      {name}: {value}\n" for name, value in arguments.items())
    tried(f"a: 1\nb: &x 2\nmodifiers:\n  - !{tag}\n{held}")


@pytest.mark.filterwarnings("error")
@settings(max_examples=EXAMPLES, deadline=2000)
@given(st.text("0123456789+-*/%().,aeb ximnroudfltsE_'[]", max_size=40))
def test_any_expression_is_computed_or_refused(expression: str) -> None:
    tried(f"a: 1\nb: 2\nc: {expression and f'eval({expression})'}\nmodifiers:\n  - !DistillationModifier\n")


@settings(max_examples=EXAMPLES, deadline=2000)
@given(st.text(max_size=40) | st.dictionaries(st.text(max_size=3), plain, max_size=2), st.text("ab", max_size=1))
def test_any_arguments_set_variables_or_are_refused(given_arguments: Any, name: str) -> None:
    with contextlib.suppress(BadConfig):
        parse_arguments(given_arguments)
    tried(f"{name or 'c'}: 1\nmodifiers:\n  - !DistillationModifier\n", arguments=given_arguments)


@settings(max_examples=EXAMPLES, deadline=2000)
@given(recipes)
def test_a_recipe_reads_back_from_what_it_writes(recipe: Recipe) -> None:
    assert parse_recipe(recipe.to_yaml()) == recipe


@settings(max_examples=EXAMPLES // 2, deadline=2000)
@given(recipes, recipes)
def test_two_recipes_composed_read_back(first: Recipe, then: Recipe) -> None:
    composed = compose(first, then)
    assert parse_recipe(composed.to_yaml()) == composed


def test_a_megabyte_of_lists_is_refused() -> None:
    with pytest.raises(BadConfig):
        parse_recipe("a: [" + "1, " * 340_000 + "1]\n")


def test_a_modifier_is_abstract_only_in_name() -> None:
    assert describe(Modifier()) == "Modifier"
