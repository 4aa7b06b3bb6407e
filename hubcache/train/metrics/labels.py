"""Metrics of class labels: one a row, several a row, or one a token; not of spans (entities.py) or text.

Labels are integers or strings, in lists or arrays; every score is a fraction between 0 and 1 (Matthews: -1 to 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hubcache.train.metrics.counts import Tally, check_rows, macro, micro, ratio

Labels: TypeAlias = Sequence[Any] | NDArray[Any]
Rows: TypeAlias = Sequence[Labels] | NDArray[Any]
IGNORED = -100


def accuracy(predictions: Labels, references: Labels) -> float:
    """Return the share of rows whose label is right."""
    check_rows(predictions, references)
    return float(np.mean(np.asarray(predictions) == np.asarray(references)))


def class_tallies(predictions: Labels, references: Labels, labels: Labels | None = None) -> dict[Any, Tally]:
    """Count each class, sorted; the classes are those seen on either side, or `labels`."""
    check_rows(predictions, references)
    guessed, true = np.asarray(predictions), np.asarray(references)
    seen = np.unique(np.concatenate([guessed, true])) if labels is None else np.asarray(labels)
    return {
        label.item(): Tally(
            int(np.sum((guessed == label) & (true == label))), int(np.sum(guessed == label)), int(np.sum(true == label))
        )
        for label in seen
    }


def macro_f1(predictions: Labels, references: Labels) -> float:
    """Return the mean F1 of the classes seen on either side."""
    return macro(class_tallies(predictions, references).values()).f1


def micro_f1(predictions: Labels, references: Labels, labels: Labels | None = None) -> float:
    """Return the F1 of the summed counts; without `labels` (a choice of classes) it equals the accuracy."""
    return micro(class_tallies(predictions, references, labels).values()).f1


def binary_f1(predictions: Labels, references: Labels) -> float:
    """Return the F1 of class 1."""
    return micro_f1(predictions, references, [1])


def matthews(predictions: Labels, references: Labels) -> float:
    """Return the Matthews correlation of any number of classes; 0 where either side has one class only."""
    tallies = list(class_tallies(predictions, references).values())
    rows, hits = len(references), sum(tally.hits for tally in tallies)
    guessed, true = [tally.predicted for tally in tallies], [tally.actual for tally in tallies]
    shared = hits * rows - sum(a * b for a, b in zip(guessed, true, strict=True))
    spread = (rows**2 - sum(a * a for a in guessed)) * (rows**2 - sum(a * a for a in true))
    return ratio(shared, float(spread) ** 0.5)


def multilabel_tallies(predictions: Rows, references: Rows) -> dict[int, Tally]:
    """Count each column of 0/1 rows [rows, labels]."""
    guessed, true = _multi_hot(predictions, references)
    counts = zip((guessed & true).sum(axis=0), guessed.sum(axis=0), true.sum(axis=0), strict=True)
    return {label: Tally(int(hits), int(made), int(real)) for label, (hits, made, real) in enumerate(counts)}


def multilabel_exact_match(predictions: Rows, references: Rows) -> float:
    """Return the share of 0/1 rows [rows, labels] that are right in every label."""
    guessed, true = _multi_hot(predictions, references)
    return float(np.mean(np.all(guessed == true, axis=1)))


def multilabel_micro_f1(predictions: Rows, references: Rows) -> float:
    """Return the F1 of the counts summed over all labels of 0/1 rows [rows, labels]."""
    return micro(multilabel_tallies(predictions, references).values()).f1


def multilabel_macro_f1(predictions: Rows, references: Rows) -> float:
    """Return the mean F1 of all labels of 0/1 rows [rows, labels]; a label that never occurs counts as 0."""
    return macro(multilabel_tallies(predictions, references).values()).f1


def _multi_hot(predictions: Rows, references: Rows) -> tuple[Any, Any]:
    check_rows(predictions, references)
    guessed: Any = np.asarray(predictions) != 0
    true: Any = np.asarray(references) != 0
    if guessed.shape != true.shape or true.ndim != 2:
        raise ValueError(f"0/1 rows of shape {guessed.shape} for references of shape {true.shape}")
    return guessed, true


def token_accuracy(predictions: Rows, references: Rows, ignored: int = IGNORED) -> float:
    """Return the share of tokens whose label is right, over all rows at once.

    Tokens whose reference is `ignored` do not count. A prediction may stop early (a CRF's list stops with the
    sentence): the tokens it lacks are wrong unless ignored. 0 where every token is ignored.
    """
    check_rows(predictions, references)
    right = total = 0
    for guessed, true in zip(predictions, references, strict=True):
        real = np.asarray(true)
        counted = real != ignored
        made = np.asarray(guessed)[: len(real)]
        total += int(counted.sum())
        right += int(((made == real[: len(made)]) & counted[: len(made)]).sum())
    return ratio(right, total)
