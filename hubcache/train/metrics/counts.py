"""Counts of hits and the precision, recall and F1 they give; not a metric by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """Precision, recall and F1 as fractions; support counts the references they stand on."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Tally:
    """How often a class (or type) was hit, predicted and true."""

    hits: int
    predicted: int
    actual: int

    @property
    def score(self) -> Score:
        """The score of these counts; a fraction with nothing below the line is 0."""
        f1 = ratio(2 * self.hits, self.predicted + self.actual)
        return Score(ratio(self.hits, self.predicted), ratio(self.hits, self.actual), f1, self.actual)


def ratio(part: float, whole: float) -> float:
    """Divide, with 0/0 (and n/0) told as 0."""
    return part / whole if whole else 0.0


def harmonic(precision: float, recall: float, beta: float = 1.0) -> float:
    """Return the F-beta of a precision and a recall; 0 where both are."""
    return ratio((1 + beta**2) * precision * recall, beta**2 * precision + recall)


def micro(tallies: Iterable[Tally]) -> Score:
    """Score the summed counts."""
    rows = list(tallies)
    return Tally(
        sum(tally.hits for tally in rows), sum(tally.predicted for tally in rows), sum(tally.actual for tally in rows)
    ).score


def macro(tallies: Iterable[Tally]) -> Score:
    """Average the scores, each class alike; all 0 where there is no class."""
    return averaged([tally.score for tally in tallies])


def weighted(tallies: Iterable[Tally]) -> Score:
    """Average the scores, each class by how often it is true."""
    scores = [tally.score for tally in tallies]
    return averaged(scores, [score.support for score in scores])


def averaged(scores: Sequence[Score], weights: Sequence[float] | None = None) -> Score:
    """Average scores, by weights where given; all 0 where the weights sum to nothing."""
    weights = [1.0] * len(scores) if weights is None else weights
    total = sum(weights)
    pairs = list(zip(scores, weights, strict=True))
    return Score(
        ratio(sum(score.precision * weight for score, weight in pairs), total),
        ratio(sum(score.recall * weight for score, weight in pairs), total),
        ratio(sum(score.f1 * weight for score, weight in pairs), total),
        sum(score.support for score in scores),
    )


def check_rows(predictions: Sized, references: Sized) -> None:
    """Refuse what no score is defined on: no rows at all, or not one prediction a reference.

    Raises: ValueError.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    if len(references) == 0:
        raise ValueError("no rows to score")
