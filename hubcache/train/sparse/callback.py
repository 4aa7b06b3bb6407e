"""A recipe at work on a transformers Trainer.

It is no trainer and changes no loss: distillation is the trainer's part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from accelerate.utils import extract_model_from_parallel
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from hubcache.train.sparse.session import Session

if TYPE_CHECKING:
    from hubcache.train.sparse.recipe import Recipe

_MEMORY = "memory"


class RecipeCallback(TrainerCallback, ExportableState):
    """Drive a Session from a Trainer's events; a resumed training goes on where it was.

    A learning rate of the recipe's holds against the Trainer's own scheduler, and the log shows it.
    """

    def __init__(self, recipe: Recipe, steps_per_epoch: int, say: Callable[[str], object] = len) -> None:
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.say = say
        self.session: Session | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin, or go on after the steps that a checkpoint holds."""
        self._close()  # a training that an exception ended left its hooks behind
        model = extract_model_from_parallel(kwargs["model"])
        self.session = Session(model, kwargs["optimizer"], self.recipe, self.steps_per_epoch, self.say)
        if state.global_step:
            self.session.remember(state.stateful_callbacks.get(type(self).__name__, {}).get(_MEMORY, {}))
            self.session.restore(state.global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Do what is due in this step."""
        if self.session is not None:
            self.session.before_step(state.global_step)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the weights right and let the scheduler, which the log asks, tell the rate of this step."""
        if self.session is None:
            return
        self.session.after_step(state.global_step)
        scheduler: Any = kwargs.get("lr_scheduler")
        scheduler = getattr(scheduler, "scheduler", scheduler)
        if self.session.sets_rates and hasattr(scheduler, "_last_lr"):
            scheduler._last_lr = [group["lr"] for group in kwargs["optimizer"].param_groups]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps for a run that goes on."""
        return {"args": {}, "attributes": {}, _MEMORY: self.session.memory() if self.session else {}}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the model without hooks."""
        self._close()

    def _close(self) -> None:
        if self.session is not None:
            self.session.close()
        self.session = None
