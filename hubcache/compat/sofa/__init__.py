"""SOFA's names for scripts that were written for it: change `sofa` to `hubcache.compat.sofa` in their import lines.

Nothing is computed here: the classes are those of hubcache.models, the rest is in the modules beside this one.
"""

from __future__ import annotations

from typing import Any

from hubcache.compat.sofa import utils
from hubcache.compat.sofa.examples import run_classification_hf, run_generation_hf, run_sequence_labeling_hf
from hubcache.compat.sofa.inference import InferenceBase, inject_pipeline, pipeline
from hubcache.compat.sofa.models import palm, sbert, veco
from hubcache.compat.sofa.utils import (
    Application,
    DatasetOutput,
    SpanClassifierOutput,
    TaskType,
    inject_model_backend,
)
from hubcache.models import (
    PalmConfig,
    PalmForConditionalGeneration,
    PalmModel,
    PalmTokenizer,
    PalmTokenizerFast,
    SbertConfig,
    SbertForMaskedLM,
    SbertForMultipleChoice,
    SbertForNextSentencePrediction,
    SbertForPreTraining,
    SbertForQuestionAnswering,
    SbertForSequenceClassification,
    SbertForTokenClassification,
    SbertModel,
    SbertTokenizer,
    SbertTokenizerFast,
    TextGenerator,
    VecoConfig,
    VecoForMultipleChoice,
    VecoForQuestionAnswering,
    VecoForSequenceClassification,
    VecoForTokenClassification,
    VecoModel,
    VecoTokenizer,
    VecoTokenizerFast,
)
from hubcache.train.child_tuning import ChildTuningAdamW, apply_child_tuning, apply_child_tuning_to_trainer

__version__ = "1.0.0"
"""The release of SOFA whose names these are."""

BACKENDS = ("huggingface", "sofa", "easytexminer", "easynlp")

__all__ = [
    "Application",
    "ChildTuningAdamW",
    "DatasetOutput",
    "InferenceBase",
    "PalmConfig",
    "PalmForConditionalGeneration",
    "PalmModel",
    "PalmTokenizer",
    "PalmTokenizerFast",
    "SbertConfig",
    "SbertForMaskedLM",
    "SbertForMultipleChoice",
    "SbertForNextSentencePrediction",
    "SbertForPreTraining",
    "SbertForQuestionAnswering",
    "SbertForSequenceClassification",
    "SbertForTokenClassification",
    "SbertModel",
    "SbertTokenizer",
    "SbertTokenizerFast",
    "SpanClassifierOutput",
    "TaskType",
    "TextGenerator",
    "VecoConfig",
    "VecoForMultipleChoice",
    "VecoForQuestionAnswering",
    "VecoForSequenceClassification",
    "VecoForTokenClassification",
    "VecoModel",
    "VecoTokenizer",
    "VecoTokenizerFast",
    "apply_child_tuning",
    "apply_child_tuning_to_trainer",
    "check_update",
    "environ",
    "inject_model_backend",
    "inject_pipeline",
    "palm",
    "pipeline",
    "run_classification_hf",
    "run_generation_hf",
    "run_sequence_labeling_hf",
    "sbert",
    "utils",
    "veco",
]


def __getattr__(name: str) -> Any:
    """SOFA has the names of its utils at its top as well, what they pass on of transformers among them."""
    if name in utils.__all__:
        return getattr(utils, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check_update() -> None:
    """Do nothing: SOFA lists this name and fails where it is used; no version is asked for anywhere."""


def environ(backend: str) -> None:
    """Choose the backend, as SOFA's scripts do first of all; here transformers stands behind every one of them.

    SOFA's own backend was transformers 4.15 in a folder of its own; the easy… toolkits are not needed for the
    classes above. Importing this module has registered them with the Auto classes already.

    Raises:
        RuntimeError: SOFA knew no such backend.
    """
    if backend not in BACKENDS:
        raise RuntimeError(f"Sofa backend {backend} not supported.")
