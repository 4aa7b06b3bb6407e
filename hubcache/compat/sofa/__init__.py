"""SOFA's names for scripts that were written for it: change `sofa` to `hubcache.compat.sofa` in their import lines.

Nothing is computed here: the classes are those of hubcache.models.
"""

from __future__ import annotations

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

__version__ = "1.0.0"
"""The release of SOFA whose names these are."""

BACKENDS = ("huggingface", "sofa", "easytexminer", "easynlp")

__all__ = [
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
    "TextGenerator",
    "VecoConfig",
    "VecoForMultipleChoice",
    "VecoForQuestionAnswering",
    "VecoForSequenceClassification",
    "VecoForTokenClassification",
    "VecoModel",
    "VecoTokenizer",
    "VecoTokenizerFast",
    "environ",
]


def environ(backend: str) -> None:
    """Choose the backend, as SOFA's scripts do first of all; here transformers stands behind every one of them.

    SOFA's own backend was transformers 4.15 in a folder of its own; the easy… toolkits are not needed for the
    classes above. Importing this module has registered them with the Auto classes already.

    Raises:
        RuntimeError: SOFA knew no such backend.
    """
    if backend not in BACKENDS:
        raise RuntimeError(f"Sofa backend {backend} not supported.")
