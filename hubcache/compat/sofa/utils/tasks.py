"""The kinds of task that SOFA's fine-tuning functions are told, and two of its outputs; it computes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput


class TaskType(Enum):
    """SOFA's words for what is trained; one of them is spelled as it was."""

    single_label_classification = "single_label_classification"
    multi_label_classification = "multi_label_classification"
    question_anwsering = "question_anwsering"
    generation = "generation"
    sequence_labeling = "sequence_labeling"

    @classmethod
    def word(cls, task: str | TaskType) -> str:
        """Return the word of a member, or of itself."""
        return task.value if isinstance(task, cls) else str(task)


@dataclass
class DatasetOutput:
    """A row of a data set: one text or two, and the label."""

    sent1: Any = None
    sent2: Any = None
    label: Any = None


@dataclass
class SpanClassifierOutput(ModelOutput):
    """Loss [] and logits of a classifier over spans."""

    loss: Tensor | None = None
    logits: Tensor | None = None
