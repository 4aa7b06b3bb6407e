"""Learn from a teacher beside the labels: softened distributions, Kullback-Leibler at a temperature.

It neither trains the teacher nor aligns two vocabularies: both models have to read the same token ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcache.errors import UsageError

IGNORED = -100
SPANS = ("start_logits", "end_logits")
_TARGETS = ("start_positions", "end_positions")


class Teacher:
    """A model that is only read: in evaluation mode and without gradients.

    `columns` says which of its outputs each label is, where it has them in another order than the student.
    """

    def __init__(self, model: nn.Module, alpha: float, temperature: float, columns: tuple[int, ...] = ()) -> None:
        self.model = model.eval().requires_grad_(False)
        self.alpha = alpha
        self.temperature = temperature
        self.columns = columns

    def loss(self, outputs: Any, inputs: Mapping[str, Any]) -> Tensor:
        """Return (1 - alpha) * the student's own loss + alpha * the distance from the teacher, for one batch."""
        with torch.no_grad():
            taught = self.model(**without_targets(inputs))
        mask = scored_positions(outputs, inputs)
        names = SPANS if SPANS[0] in outputs else ("logits",)
        told = [ordered(taught[name], self.columns) for name in names]
        distances = [
            soft_loss(outputs[name], each, self.temperature, mask) for name, each in zip(names, told, strict=True)
        ]
        return (1 - self.alpha) * outputs["loss"] + self.alpha * torch.stack(distances).mean()


def ordered(logits: Tensor, columns: tuple[int, ...]) -> Tensor:
    """Return a teacher's logits [..., labels] in the order of the labels; () leaves them."""
    return logits[..., list(columns)] if columns else logits


def without_targets(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch without the positions that a span's loss is made of: no teacher needs them."""
    return {name: value for name, value in inputs.items() if name not in _TARGETS}


def soft_loss(student: Tensor, teacher: Tensor, temperature: float, mask: Tensor | None = None) -> Tensor:
    """Return the distance of `student` from `teacher`, both [..., labels], averaged over the positions of `mask`.

    It is T^2 * KL(teacher/T || student/T), so that its gradient keeps its size as T grows; with one label, which has
    no distribution, the squared error. Source: Hinton et al. 2015, arXiv 1503.02531.
    """
    student, teacher = student.float(), teacher.float()
    if mask is not None:
        student, teacher = student[mask], teacher[mask]
    student, teacher = student.reshape(-1, student.shape[-1]), teacher.reshape(-1, teacher.shape[-1])
    if student.shape[-1] == 1:
        return functional.mse_loss(student, teacher)
    distance = functional.kl_div(
        functional.log_softmax(student / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return distance * temperature**2


def scored_positions(outputs: Any, inputs: Mapping[str, Any]) -> Tensor | None:
    """Return which positions [batch, seq] carry a label, or None where a row has one distribution."""
    labels = inputs.get("labels")
    logits = outputs.get("logits")
    if labels is None or logits is None or logits.dim() != 3 or labels.shape != logits.shape[:2]:
        return None
    return labels != IGNORED


def check_same_tokens(student: Any, teacher: Any) -> None:
    """Refuse a teacher whose tokenizer gives other ids than the student's. Raises: UsageError."""
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    differing = sum(theirs.get(token) != number for token, number in ours.items())
    if differing or len(ours) != len(theirs):
        raise UsageError(
            f"the teacher's vocabulary is another than the model's: {differing} tokens of {len(ours)} differ",
            hint="take a teacher that was trained with the same tokenizer",
        )
