"""Quantisation-aware training on torch's core operators, with SparseML's state keys; not integer arithmetic."""

from __future__ import annotations

from hubcache.train.sparse.quantization.action import QuantizationAction, check, definitions, half_precision_until
from hubcache.train.sparse.quantization.build import (
    freeze_observers,
    has_quantization,
    is_quantized,
    load_state,
    restore_structure,
    structure_from_keys,
)
from hubcache.train.sparse.quantization.export import exportable

__all__ = [
    "QuantizationAction",
    "check",
    "definitions",
    "exportable",
    "freeze_observers",
    "half_precision_until",
    "has_quantization",
    "is_quantized",
    "load_state",
    "restore_structure",
    "structure_from_keys",
]
