"""What every modifier of a recipe is at work: an action that the session asks before and after each optimizer step.

Nothing here reads a recipe or changes a weight; the actions themselves stand beside, a module for each kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from hubcache.train.sparse.recipe import Modifier, Recipe

NEVER = math.inf
_ROUNDING = 1e-6
"""Of a step: a recipe's arithmetic (0.1 * 3) must not miss its step by a rounding."""


@dataclass(slots=True)
class Training:
    """What is trained, how many optimizer steps an epoch has, and who is told what happens.

    `rates` holds, for each parameter group, the learning rate that recipes want and the step it was set at.
    """

    model: Any
    optimizer: Any
    steps_per_epoch: int
    say: Callable[[str], object] = len
    rates: dict[int, tuple[int, float]] = field(default_factory=dict)

    def step_at(self, epoch: float) -> int:
        """Return the optimizer step (from 0) that the clock shows as `epoch`."""
        return round(epoch * self.steps_per_epoch)

    def first_step(self, epoch: float) -> float:
        """Return the first step at or after `epoch`; an epoch below 0 is at once."""
        return max(0, math.ceil(epoch * self.steps_per_epoch - _ROUNDING))

    def end_step(self, epoch: float) -> float:
        """Return the first step at or after an end, where -1 is never."""
        return NEVER if epoch < 0 else self.first_step(epoch)


class Action(Protocol):
    """A modifier at work. Epochs are steps / steps_per_epoch, as floats."""

    definition: Any

    def update(self, training: Training, epoch: float) -> None:
        """Do what is due before the optimizer step at `epoch`; its backward is done."""

    def after_step(self, training: Training) -> None:
        """Put right what the optimizer step changed."""

    def restore(self, training: Training, epoch: float) -> None:
        """Bring the structure to where it is after the steps before `epoch`; no weight is touched."""

    def close(self, training: Training) -> None:
        """Take off every hook; the weights stay as they are."""


class Quiet:
    """An action that does nothing: the base of those that leave out a part."""

    def __init__(self, definition: Any) -> None:
        self.definition = definition

    def update(self, training: Training, epoch: float) -> None:
        """Do nothing."""

    def after_step(self, training: Training) -> None:
        """Do nothing."""

    def restore(self, training: Training, epoch: float) -> None:
        """Do nothing."""

    def close(self, training: Training) -> None:
        """Do nothing."""


def actions_for(recipe: Recipe) -> list[Action]:
    """Return an action for each modifier that acts on model or optimizer, in the recipe's order."""
    return [_action(definition) for definition in recipe.modifiers if _kind(definition) not in _PASSIVE]


_PASSIVE = {"EpochRangeModifier", "DistillationModifier"}
"""They say how long a training is, or stand in the loss."""


def _kind(definition: Modifier) -> str:
    return type(definition).__name__


def _action(definition: Modifier) -> Action:
    # The actions' modules import this one, so that they are only looked for here.
    from hubcache.train.sparse import pruning, schedules
    from hubcache.train.sparse.recipe import LegacyQuantizationModifier, QuantizationModifier

    kind = _kind(definition)
    known = schedules.ACTIONS | pruning.ACTIONS
    if kind in known:
        return known[kind](definition)
    if isinstance(definition, QuantizationModifier | LegacyQuantizationModifier):
        from hubcache.train.sparse.quantization import QuantizationAction

        return QuantizationAction(definition)
    raise TypeError(f"there is no action for {kind}")
