"""KLUE's official metrics, 0 to 100, as KLUE-baseline computes them; KE-T5's own for the same tasks are in ke_t5.py."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from hubcache.train.metrics.answers import Predictions, best_of, run_f1
from hubcache.train.metrics.bleu import Answers, accepted
from hubcache.train.metrics.counts import check_rows, macro
from hubcache.train.metrics.entities import Tags, entity_tallies
from hubcache.train.metrics.labels import Labels, Rows, accuracy, binary_f1, class_tallies, macro_f1, micro_f1
from hubcache.train.metrics.values import Values, pearson

NER_TAGS = (*(f"{place}-{kind}" for kind in ("PS", "LC", "OG", "DT", "TI", "QT") for place in "BI"), "O")
RE_LABELS = 30
STS_SIMILAR = 3.0
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Meant as one class of characters, the official pattern closes its bracket too early and asks for these in a row.
_MALFORMED = re.compile("['\"《》<>〈〉]" + re.escape("()‘’"))


def ynat_macro_f1(predictions: Labels, references: Labels) -> float:
    """Return the macro F1 of topics, over those seen on either side."""
    return 100 * macro_f1(predictions, references)


def nli_accuracy(predictions: Labels, references: Labels) -> float:
    """Return the share of right labels."""
    return 100 * accuracy(predictions, references)


def sts_pearson(predictions: Values, references: Values) -> float:
    """Return Pearson's correlation times 100; NaN where a side is constant."""
    return 100 * pearson(predictions, references)


def sts_f1(predictions: Values, references: Values) -> float:
    """Return the F1 of "similar", which is a score of 3 or more on either side."""
    similar = [np.asarray(side, dtype=float).reshape(-1) >= STS_SIMILAR for side in (predictions, references)]
    return 100 * binary_f1(similar[0].astype(int), similar[1].astype(int))


def ner_entity_f1(predictions: Sequence[Tags], references: Sequence[Tags]) -> float:
    """Return the macro F1 of well-formed IOB2 entities of character tags, over the types seen.

    All sentences are read as one row, as the official script does; IOB2 loses and gains nothing by that except where
    a sentence begins with an `I-` tag that follows its type in the sentence before.
    """
    check_rows(predictions, references)
    rows = [[tag for row in side for tag in row] for side in (predictions, references)]
    return 100 * macro(entity_tallies(rows[:1], rows[1:], "IOB2").values()).f1


def ner_character_f1(predictions: Sequence[Tags], references: Sequence[Tags], tags: Sequence[str] = NER_TAGS) -> float:
    """Return the macro F1 of character tags over all 13 of them, O included; a tag on neither side counts as 1."""
    check_rows(predictions, references)
    rows = [[tag for row in side for tag in row] for side in (predictions, references)]
    tallies = class_tallies(rows[0], rows[1], tags).values()
    return 100 * fmean(tally.score.f1 if tally.predicted + tally.actual else 1.0 for tally in tallies)


def re_micro_f1(predictions: Labels, references: Labels) -> float:
    """Return the micro F1 of the 29 relations; a relation guessed where there is none (label 0) is an error."""
    return 100 * micro_f1(predictions, references, range(1, RE_LABELS))


def re_auprc(probabilities: Rows, references: Labels) -> float:
    """Return the mean area under the precision-recall curves of all relations, label 0 included.

    probabilities: [rows, labels]. A relation that no reference has is left out (the official script needs all 30).
    """
    check_rows(probabilities, references)
    scores, true = np.asarray(probabilities, dtype=float), np.asarray(references)
    return 100 * fmean(_curve_area(scores[:, label], true == label) for label in np.unique(true).tolist())


def mrc_exact_match(predictions: Predictions, references: Answers) -> float:
    """Return the exact match of normalised answers; an unanswerable question's answer is ""."""
    return 100 * best_of(predictions, _or_no_answer(references), lambda made, real: float(made == real), mrc_normalized)


def mrc_rouge_w(predictions: Predictions, references: Answers) -> float:
    """Return the F1 of the longest run of characters that both answers have.

    A question without prediction scores 0 (the official script leaves it out), and answers of 200 characters and more
    are matched exactly (the official script's difflib ignores their most frequent characters).
    """
    return 100 * best_of(predictions, _or_no_answer(references), _rouge_w, mrc_normalized)


def mrc_normalized(text: str) -> str:
    """Lower the case, delete ASCII punctuation and squeeze spaces; other quotes stay, as in the official script."""
    return " ".join(_MALFORMED.sub(" ", text.lower()).translate(_PUNCTUATION).split())


def _rouge_w(prediction: str, reference: str) -> float:
    return run_f1(prediction, reference) if reference else float(not prediction)


def _or_no_answer(references: Answers) -> list[Sequence[str]]:
    return [accepted(real) or [""] for real in references]


def _curve_area(scores: Any, true: Any) -> float:
    """Trapezoids between the distinct thresholds, from recall 0 at precision 1 (scikit-learn's curve)."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_ties: Any = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    hits = np.cumsum(true[order])[last_of_ties]
    recall = np.concatenate([[0.0], hits / hits[-1]])
    precision = np.concatenate([[1.0], hits / (last_of_ties + 1)])
    return float(np.sum((recall[1:] - recall[:-1]) * (precision[1:] + precision[:-1]) / 2))
