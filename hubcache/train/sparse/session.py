"""A recipe at work on a model and an optimizer, step by step.

It trains nothing: whoever does, calls it before and after each optimizer step (see callback.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hubcache.train.sparse.actions import Action, Training, actions_for
from hubcache.train.sparse.pruning import MagnitudePruning
from hubcache.train.sparse.schedules import RateAction, claim_rates, write_rates

if TYPE_CHECKING:
    from hubcache.train.sparse.recipe import Recipe

__all__ = ["Action", "Session", "Training", "actions_for"]


class Session:
    """The actions of a recipe. Steps are optimizer steps from 0, epochs are steps / steps_per_epoch.

    What starts at an epoch does so within its first step, after the backward and before the optimizer.
    Source: SparseML's ScheduledModifierManager.
    """

    def __init__(
        self, model: Any, optimizer: Any, recipe: Recipe, steps_per_epoch: int, say: Callable[[str], object] = len
    ) -> None:
        self.training = Training(model, optimizer, steps_per_epoch, say)
        self.actions = actions_for(recipe)
        if any(isinstance(action, RateAction) for action in self.actions):
            claim_rates(self.training)

    @property
    def sets_rates(self) -> bool:
        """Whether the recipe has a say in the learning rate."""
        return bool(self.training.rates)

    def before_step(self, step: int) -> None:
        """Do what is due once the gradients of a step are there. Raises: BadConfig."""
        epoch = step / self.training.steps_per_epoch
        for action in self.actions:
            action.update(self.training, epoch)
        write_rates(self.training)

    def after_step(self, step: int) -> None:
        """Put right what the optimizer changed."""
        for action in self.actions:
            action.after_step(self.training)

    def restore(self, step: int) -> None:
        """Bring structure and schedules to where they are before `step`: for a run that goes on. Raises: BadConfig."""
        for action in self.actions:
            action.restore(self.training, step / self.training.steps_per_epoch)

    def memory(self) -> dict[str, Any]:
        """Return what neither weights nor steps tell, as JSON: the sparsities that gradual pruning began with."""
        numbered = enumerate(self.actions)
        gradual = {str(number): each for number, each in numbered if isinstance(each, MagnitudePruning)}
        return {number: dict(each.initial) for number, each in gradual.items() if each.begins_as_found}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take what `memory` returned, before restore()."""
        for number, initial in memory.items():
            action = self.actions[int(number)]
            if isinstance(action, MagnitudePruning):
                action.initial.update(initial)

    def close(self) -> None:
        """Take off all hooks."""
        for action in self.actions:
            action.close(self.training)
