"""PALM by the names of SOFA's module; what hubcache has beyond these is in hubcache.models."""

from torch.nn import LayerNorm as PalmLayerNorm

from hubcache.models import (
    PalmConfig,
    PalmForConditionalGeneration,
    PalmModel,
    PalmTokenizer,
    PalmTokenizerFast,
)

__all__ = [
    "PalmConfig",
    "PalmForConditionalGeneration",
    "PalmLayerNorm",
    "PalmModel",
    "PalmTokenizer",
    "PalmTokenizerFast",
]
