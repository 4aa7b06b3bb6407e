"""A recipe's quantisation while a model trains: when layers start to round and when scales stop moving; not how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from hubcache.train.sparse.quantization.build import freeze_observers, restore_structure
from hubcache.train.sparse.quantization.fake import quantizers
from hubcache.train.sparse.quantization.plan import Definition, places
from hubcache.train.sparse.recipe.modifiers import LegacyQuantizationModifier, QuantizationModifier

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from hubcache.train.sparse.recipe import Recipe
    from hubcache.train.sparse.session import Training


class QuantizationAction:
    """Both forms of a recipe's quantisation, on the session's clock."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._is_on = False
        self._is_frozen = False
        self._still: list[RemovableHandle] = []

    def update(self, training: Training, epoch: float) -> None:
        """Let layers round from the definition's start on, and freeze what is due. Raises: BadConfig."""
        step = training.step_at(epoch)
        if not self._is_on and step >= training.first_step(self.definition.start_epoch):
            restore_structure(training.model, [self.definition])
            for quantizer in quantizers(training.model):
                quantizer.observe(True)
            self._is_on = True
            training.say(f"epoch {epoch:g}: {len(quantizers(training.model))} quantisers round from the next step on")
        self._freeze(training, step)

    def after_step(self, training: Training) -> None:
        """Do nothing: rounding is in the forward pass."""

    def restore(self, training: Training, epoch: float) -> None:
        """Build what the steps before `epoch` built; the state that is loaded next brings scales. Raises: BadConfig."""
        if training.step_at(epoch) > training.first_step(self.definition.start_epoch):
            restore_structure(training.model, [self.definition])
            self._is_on = True
        # The state that comes has the observers' flags; of batch norms it has none.
        self._keep_statistics(training, training.step_at(epoch) - 1)

    def close(self, training: Training) -> None:
        """Let batch norms move again; quantised layers are the model's and stay."""
        for handle in self._still:
            handle.remove()
        self._still.clear()

    def _freeze(self, training: Training, step: int) -> None:
        if not self._is_frozen and _is_due(training, self.definition.disable_quantization_observer_epoch, step):
            freeze_observers(training.model)
            self._is_frozen = True
        self._keep_statistics(training, step)

    def _keep_statistics(self, training: Training, step: int) -> None:
        if not self._still and _is_due(training, self.definition.freeze_bn_stats_epoch, step):
            norms = [each for each in training.model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
            self._still = [norm.register_forward_pre_hook(_use_running_statistics) for norm in norms]


def check(model: nn.Module, recipe: Recipe) -> None:
    """Hold a recipe's quantisation against a model, before any training. Raises: BadConfig."""
    for definition in definitions(recipe):
        places(model, definition)


def definitions(recipe: Recipe) -> tuple[Definition, ...]:
    """Return a recipe's quantisation modifiers of both forms."""
    return tuple(
        each for each in recipe.modifiers if isinstance(each, LegacyQuantizationModifier | QuantizationModifier)
    )


def half_precision_until(recipe: Recipe) -> float | None:
    """Return the epoch from which a recipe's training must leave fp16 and bf16 autocast; None where it may keep it."""
    return min((max(each.start_epoch, 0.0) for each in definitions(recipe)), default=None)


def _is_due(training: Training, epoch: float | None, step: int) -> bool:
    return epoch is not None and step >= training.first_step(epoch)


def _use_running_statistics(norm: nn.Module, _inputs: Any) -> None:
    norm.eval()
