"""Metrics of real-valued predictions; not of classes.

A correlation with a side that does not vary is undefined: it comes back as NaN, the only metrics here that do so, and
`registry.is_better` never takes a NaN for the best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hubcache.train.metrics.counts import check_rows

Values: TypeAlias = Sequence[Any] | NDArray[Any]


def mse(predictions: Values, references: Values) -> float:
    """Return the mean squared error."""
    guessed, true = _vectors(predictions, references)
    return float(np.mean((guessed - true) ** 2))


def pearson(predictions: Values, references: Values) -> float:
    """Return Pearson's correlation, -1 to 1; NaN where either side is constant or there is one row."""
    guessed, true = _vectors(predictions, references)
    if np.all(guessed == guessed[0]) or np.all(true == true[0]):
        return math.nan
    left, right = guessed - guessed.mean(), true - true.mean()
    shared = np.dot(left / np.linalg.norm(left), right / np.linalg.norm(right))
    return float(np.clip(shared, -1.0, 1.0))


def spearman(predictions: Values, references: Values) -> float:
    """Return Spearman's correlation, ties at their average rank; NaN as `pearson`."""
    guessed, true = _vectors(predictions, references)
    return pearson(_ranks(guessed), _ranks(true))


def _ranks(values: Any) -> Any:
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[position]


def _vectors(predictions: Values, references: Values) -> tuple[Any, Any]:
    """A head of one number gives [rows, 1]: the column is taken."""
    check_rows(predictions, references)
    guessed = np.asarray(predictions, dtype=float).reshape(len(predictions), -1)
    true = np.asarray(references, dtype=float).reshape(len(references), -1)
    if guessed.shape[1] != 1 or true.shape[1] != 1:
        raise ValueError(f"one number a row is scored, not {guessed.shape[1]} for {true.shape[1]}")
    return guessed[:, 0], true[:, 0]
