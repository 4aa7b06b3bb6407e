"""A recipe's DistillationModifier at work: a teacher's distribution in the loss, as SparseML computes it.

It loads no teacher, trains none, and is not `--teacher` without a recipe, which weighs labelled positions alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcache.errors import BadConfig
from hubcache.train.distill import ordered, without_targets

if TYPE_CHECKING:
    from hubcache.train.sparse.recipe import DistillationModifier

SELF, DISABLE = "self", "disable"
_ROUNDING = 1e-9
"""Of an epoch: a recipe's arithmetic (0.1 * 3) must not miss its step by a rounding."""
LOSS = "loss"


def kl_distance(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 times the mean divergence of `student` from `teacher`, both [..., labels].

    Every position counts, padding too. Source: SparseML's DistillationModifier; Hinton et al. 2015, arXiv 1503.02531.
    Raises: BadConfig where the shapes differ.
    """
    if student.shape != teacher.shape:
        raise BadConfig(
            f"the teacher's output is {list(teacher.shape)}, the model's {list(student.shape)}; they must be alike",
            hint="take a teacher of the same task and labels",
        )
    told = functional.log_softmax(teacher.float() / temperature, dim=-1).reshape(-1, teacher.shape[-1])
    said = functional.log_softmax(student.float() / temperature, dim=-1).reshape(-1, student.shape[-1])
    return temperature**2 * functional.kl_div(said, told, reduction="batchmean", log_target=True)


def distance(definition: DistillationModifier, student: Any, teacher: Any) -> Tensor:
    """Return the distance of a model's outputs from a teacher's: the mean over the keys that the recipe names.

    Outputs are a tensor, a sequence or a mapping; without keys, every tensor but the loss counts. Raises: BadConfig.
    """
    if isinstance(student, Tensor) != isinstance(teacher, Tensor):
        raise BadConfig("of the model and its teacher, one gives a tensor and the other several outputs")
    if isinstance(student, Tensor):
        return kl_distance(student, teacher, definition.temperature)
    keys = definition.distill_output_keys or shared_keys(student)
    pairs = [(_output(student, key, "model"), _output(teacher, key, "teacher")) for key in keys]
    return torch.stack([kl_distance(*pair, definition.temperature) for pair in pairs]).mean()


def shared_keys(outputs: Any) -> list[Any]:
    """Return what can be distilled of a model's outputs: its tensors but the loss, which is no distribution."""
    keys = list(outputs) if isinstance(outputs, Mapping) else list(range(len(outputs)))
    return [key for key in keys if key != LOSS and isinstance(outputs[key], Tensor) and outputs[key].dim()]


def is_active(definition: DistillationModifier, epoch: float) -> bool:
    """Tell whether it is at work in a step: from its start to its end, the first step at the end included."""
    start, end = definition.start_epoch - _ROUNDING, definition.end_epoch + _ROUNDING
    return start <= epoch and (definition.end_epoch < 0 or epoch <= end)


def find_teacher(teacher: Any, model: nn.Module) -> nn.Module | None:
    """Return the teacher, ready to be asked: a module, "self" for a frozen copy of the model, None for "disable".

    Raises: BadConfig for anything else, None too: a recipe that distils has to be told by whom.
    """
    if teacher == DISABLE:
        return None
    if teacher == SELF:
        teacher = copy.deepcopy(model)
    if not isinstance(teacher, nn.Module):
        raise BadConfig(
            f"the recipe distils, and {teacher!r} is no teacher",
            hint="--teacher MODEL, --teacher self for the model as it was, --teacher disable to go without",
        )
    return teacher.eval().requires_grad_(False)


class RecipeTeacher:
    """A teacher in the loss as long as the recipe says, and nothing outside that time.

    `epoch` tells where the training is; `columns` which of the teacher's outputs each label is, if in another order.
    """

    def __init__(
        self,
        definitions: Sequence[DistillationModifier],
        model: nn.Module,
        epoch: Callable[[], float],
        columns: tuple[int, ...] = (),
    ) -> None:
        self.definitions = tuple(definitions)
        self.model = model
        self.epoch = epoch
        self.columns = columns

    def loss(self, outputs: Any, inputs: Mapping[str, Any]) -> Tensor:
        """Return (1 - hardness) * the model's own loss + hardness * the distance from the teacher, for one batch."""
        loss: Tensor = outputs[LOSS]
        for definition in self.definitions:
            if is_active(definition, self.epoch()):
                taught = self._taught(definition, inputs)
                hardness = definition.hardness
                loss = (1 - hardness) * loss + hardness * distance(definition, outputs, taught)
        return loss

    def _taught(self, definition: DistillationModifier, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        asked = without_targets(inputs)
        if definition.teacher_input_keys:
            missing = [key for key in definition.teacher_input_keys if key not in inputs]
            if missing:
                raise BadConfig(
                    f"the recipe gives the teacher {', '.join(missing)}, which no batch has",
                    hint=f"a batch has {', '.join(inputs)}",
                )
            asked = {key: inputs[key] for key in definition.teacher_input_keys}
        with torch.no_grad():
            outputs = self.model(**asked)
        columns = {"logits": self.columns}
        return {
            key: ordered(value, columns.get(key, ())) for key, value in outputs.items() if isinstance(value, Tensor)
        }


def _output(outputs: Any, key: Any, whose: str) -> Tensor:
    try:
        value = outputs[key]
    except (KeyError, IndexError, TypeError):
        value = None
    if not isinstance(value, Tensor):
        known = ", ".join(str(one) for one in shared_keys(outputs))
        raise BadConfig(f"the recipe distils {key!r}, which the {whose} does not give", hint=f"it gives {known}")
    return value
