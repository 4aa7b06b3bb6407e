"""A read recipe: its modifiers in the order they are applied; not how it is read (read.py) or written (write.py)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hubcache.train.sparse.recipe.modifiers import Modifier
from hubcache.train.sparse.recipe.write import recipe_yaml

M = TypeVar("M", bound=Modifier)


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage's name and its modifiers, in the order applied."""

    name: str
    modifiers: tuple[Modifier, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Modifiers in the order applied; `metadata` is by stage where there are `stages`; `variables` are the root's,
    resolved, and no part of what makes two recipes equal: a written recipe has none left.
    """

    modifiers: tuple[Modifier, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict, compare=False)
    stages: tuple[Stage, ...] = ()

    @property
    def max_epochs(self) -> int:
        """The epochs a run has: the last start or end, rounded up; -1 where nothing has one."""
        bounds = [bound for each in self.modifiers for bound in (each.start_epoch, each.end_epoch)]
        return max([-1, *(math.ceil(bound) for bound in bounds)])

    @property
    def min_epochs(self) -> int:
        """The first epoch that a modifier names as its start, rounded down; -1 where none does."""
        return min((math.floor(each.start_epoch) for each in self.modifiers if each.start_epoch >= 0), default=-1)

    def of(self, kind: type[M]) -> tuple[M, ...]:
        """Return the modifiers of a class, its subclasses too."""
        return tuple(each for each in self.modifiers if isinstance(each, kind))

    def to_yaml(self) -> str:
        """Write the recipe resolved, every argument named, as it stands beside a trained model."""
        return recipe_yaml(self)


def ordered(modifiers: Iterable[Modifier]) -> tuple[Modifier, ...]:
    """Sort modifiers into the order they are applied: by end, start, class and arguments (facts 4.4)."""
    return tuple(sorted(modifiers, key=lambda each: each.rank()))


def staged(stages: Iterable[Stage], metadata: Mapping[str, Any], variables: Mapping[str, Any]) -> Recipe:
    """Make a recipe of stages, applied one after the other."""
    held = tuple(stages)
    return Recipe(tuple(each for stage in held for each in stage.modifiers), metadata, variables, held)


def compose(first: Recipe, then: Recipe) -> Recipe:
    """Put `then` after `first`: stages stage_0, stage_1 …, what had no end in `first` ends where `then` starts.

    `then` is moved by the epochs that `first` has. Quantisation has no end and keeps none, so that the result loads
    again (the reference writes one that does not).
    """
    epochs = float(max(first.max_epochs, 0))
    before = [tuple(each.ended(epochs) for each in modifiers) for modifiers, _ in _parts(first)]
    after = [tuple(each.shifted(epochs) for each in modifiers) for modifiers, _ in _parts(then)]
    stages = [Stage(f"stage_{index}", ordered(modifiers)) for index, modifiers in enumerate(before + after)]
    notes = [note for recipe in (first, then) for _, note in _parts(recipe)]
    return staged(stages, {stage.name: note for stage, note in zip(stages, notes, strict=True)}, {})


def with_metadata(recipe: Recipe, metadata: Mapping[str, Any]) -> Recipe:
    """Return the recipe with this metadata instead, on its last stage where it has stages."""
    if recipe.stages:
        metadata = {**recipe.metadata, recipe.stages[-1].name: metadata}
    return replace(recipe, metadata=metadata)


def _parts(recipe: Recipe) -> list[tuple[tuple[Modifier, ...], Any]]:
    if not recipe.stages:
        return [(recipe.modifiers, recipe.metadata or None)]
    return [(stage.modifiers, recipe.metadata.get(stage.name)) for stage in recipe.stages]
