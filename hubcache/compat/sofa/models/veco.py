"""VECO by the names of SOFA's module; what hubcache has beyond these is in hubcache.models."""

from hubcache.models import (
    VecoConfig,
    VecoForMultipleChoice,
    VecoForQuestionAnswering,
    VecoForSequenceClassification,
    VecoForTokenClassification,
    VecoModel,
    VecoTokenizer,
    VecoTokenizerFast,
)

__all__ = [
    "VecoConfig",
    "VecoForMultipleChoice",
    "VecoForQuestionAnswering",
    "VecoForSequenceClassification",
    "VecoForTokenClassification",
    "VecoModel",
    "VecoTokenizer",
    "VecoTokenizerFast",
]
