"""A recipe in a fine-tuning run: when its changes are done, what of it is quantised, what it left sparse.

It takes no step and changes no weight: that is the session's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubcache.train.sparse.actions import Training
from hubcache.train.sparse.matching import prunable
from hubcache.train.sparse.quantization import definitions, half_precision_until
from hubcache.train.sparse.recipe import (
    ConstantPruningModifier,
    DistillationModifier,
    GMPruningModifier,
    LearningRateFunctionModifier,
    LearningRateModifier,
    LegacyQuantizationModifier,
    Modifier,
    QuantizationModifier,
    Recipe,
    SetLearningRateModifier,
    compose,
    read_recipe,
)

FILE = "recipe.yaml"
"""The recipe that a trained model carries beside its weights."""

CHANGES = (ConstantPruningModifier, GMPruningModifier, QuantizationModifier, LegacyQuantizationModifier)
RATES = (SetLearningRateModifier, LearningRateFunctionModifier, LearningRateModifier)


@dataclass(frozen=True, slots=True)
class Tuning:
    """A recipe laid over a run of so many steps an epoch; `bf16` says that the run computes in half precision."""

    recipe: Recipe
    steps_per_epoch: int
    bf16: bool = False

    def epoch(self, step: int) -> float:
        """Return where a step is, which is numbered from 0."""
        return step / self.steps_per_epoch

    def is_whole(self, steps: int) -> bool:
        """Tell whether, after so many steps, nothing of the model's structure is to change any more."""
        return steps > self._first_step(changed_until(self.recipe))

    def is_half(self, step: int) -> bool:
        """Tell whether a step is computed in half precision: until quantisation begins, which needs all the bits."""
        until = half_precision_until(self.recipe)
        return self.bf16 and (until is None or step < self._first_step(until))

    def begun(self, steps: int) -> list[Any]:
        """Return the quantisers that have changed the model after so many steps."""
        return [one for one in definitions(self.recipe) if steps > self._first_step(one.start_epoch)]

    def _first_step(self, epoch: float) -> float:
        return Training(None, None, self.steps_per_epoch).first_step(epoch)


def distillers(recipe: Recipe) -> tuple[DistillationModifier, ...]:
    """Return the recipe's modifiers that distil."""
    return tuple(one for one in recipe.modifiers if isinstance(one, DistillationModifier))


def changed_until(recipe: Recipe) -> float:
    """Return the epoch whose first step makes the last change of structure: the last mask, the last observed scale.

    A modifier that never ends (constant masks, quantisers whose observers go on) has changed all at its start.
    """
    return max((_settled(one) for one in recipe.modifiers if isinstance(one, CHANGES)), default=-1.0)


def _settled(one: Any) -> float:
    if isinstance(one, GMPruningModifier):
        return max(one.start_epoch, one.end_epoch)
    frozen = getattr(one, "disable_quantization_observer_epoch", None)
    return max(one.start_epoch, -1.0 if frozen is None else frozen)


def recipe_beside(folder: Path) -> Recipe | None:
    """Read the recipe that a model's folder carries, None where it has none. Raises: BadConfig."""
    path = folder / FILE
    return read_recipe(path) if path.is_file() else None


def resulting(folder: Path, recipe: Recipe | None) -> Recipe | None:
    """Return the recipe of a model trained by `recipe` from a folder: the folder's own stands before it."""
    before = recipe_beside(folder)
    if before is None or recipe is None:
        return recipe or before
    return compose(before, recipe)


def sparsity_of(model: Any) -> dict[str, float]:
    """Return the share of zeros in each weight that can be pruned, by its name, and as `total` in all of them."""
    weights = prunable(model)
    zeros = {name: int((weight == 0).sum()) for name, weight in weights.items()}
    if not any(zeros.values()):
        return {}
    shares = {name: zeros[name] / weight.numel() for name, weight in weights.items()}
    return {**shares, "total": sum(zeros.values()) / sum(weight.numel() for weight in weights.values())}


def epochs_of(recipe: Recipe) -> float:
    """Return how many epochs the recipe wants, 0 where it does not say."""
    wanted = float(recipe.max_epochs)
    return wanted if math.isfinite(wanted) and wanted > 0 else 0.0


def rates_of(recipe: Recipe) -> Sequence[Modifier]:
    """Return the recipe's modifiers that set the learning rate."""
    return [one for one in recipe.modifiers if isinstance(one, RATES)]
