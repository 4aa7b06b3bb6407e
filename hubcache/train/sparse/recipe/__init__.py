"""Recipes: read, composed and written; not how they are trained, and no torch."""

from hubcache.train.sparse.recipe.arguments import parse_arguments
from hubcache.train.sparse.recipe.modifiers import (
    ConstantPruningModifier,
    DistillationModifier,
    EpochRangeModifier,
    GlobalMagnitudePruningModifier,
    GMPruningModifier,
    LearningRateFunctionModifier,
    LearningRateModifier,
    LegacyQuantizationModifier,
    MagnitudePruningModifier,
    Modifier,
    QuantizationModifier,
    SetLearningRateModifier,
    SetWeightDecayModifier,
    TrainableParamsModifier,
)
from hubcache.train.sparse.recipe.plan import Recipe, Stage, compose, with_metadata
from hubcache.train.sparse.recipe.read import parse_recipe, read_recipe

__all__ = [
    "ConstantPruningModifier",
    "DistillationModifier",
    "EpochRangeModifier",
    "GMPruningModifier",
    "GlobalMagnitudePruningModifier",
    "LearningRateFunctionModifier",
    "LearningRateModifier",
    "LegacyQuantizationModifier",
    "MagnitudePruningModifier",
    "Modifier",
    "QuantizationModifier",
    "Recipe",
    "SetLearningRateModifier",
    "SetWeightDecayModifier",
    "Stage",
    "TrainableParamsModifier",
    "compose",
    "parse_arguments",
    "parse_recipe",
    "read_recipe",
    "with_metadata",
]
