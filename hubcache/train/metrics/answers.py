"""Metrics of short answers against the answers accepted: SQuAD, KorQuAD 1.0, CMRC 2018, and plain characters.

Every function takes one prediction a question, None where there is none (it scores 0 but counts), and the accepted
answers of each question; the best of them counts. Scores of the named benchmarks run from 0 to 100 as their official
scripts print them, the plain ones from 0 to 1. KLUE's MRC is in klue.py.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import fmean

from hubcache.train.metrics.bleu import Answers, accepted
from hubcache.train.metrics.counts import Tally, check_rows, ratio

Predictions = Sequence[str | None]
Pair = Callable[[str, str], float]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_KORQUAD_QUOTES = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))
_FINAL_STOP = re.compile(r"(?<=[^.])\.(?=[\])}>\"'\s]*$)")
_MARK = re.compile(r"\.{2,}|[!?;@#$%&()\[\]{}<>\"\u2012-\u2015‘«»]|,(?!\d)|(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)")
_CLITIC = re.compile(r"(?<=[^'\s])(?:'(?:s|m|d|ll|re|ve|)|n't)(?=\s|$)")
_GROWN_TOGETHER = re.compile(r"\b(can(?=not)|(?:gon|wan)(?=na)|got(?=ta)|(?:gim|lem)(?=me))(not|na|ta|me)\b")
_CMRC_MARKS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")


def exact_match(predictions: Predictions, references: Answers) -> float:
    """Return the share of answers equal, character by character, to an accepted one."""
    return best_of(predictions, references, _equal)


def character_f1(predictions: Predictions, references: Answers) -> float:
    """Return the mean F1 of the characters (spaces too, order ignored) of each answer."""
    return best_of(predictions, references, overlap_f1)


def squad_exact_match(predictions: Predictions, references: Answers) -> float:
    """Return SQuAD 1.1's exact match, 0 to 100: case, ASCII punctuation, articles and extra spaces ignored."""
    return 100 * best_of(predictions, references, _equal, squad_normalized)


def squad_f1(predictions: Predictions, references: Answers) -> float:
    """Return SQuAD 1.1's F1 of words, 0 to 100."""
    return 100 * best_of(predictions, references, _squad_f1, squad_normalized)


def korquad_exact_match(predictions: Predictions, references: Answers) -> float:
    """Return KorQuAD 1.0's exact match, 0 to 100. Source: evaluate-v1.0.py."""
    return 100 * best_of(predictions, references, _equal, korquad_normalized)


def korquad_f1(predictions: Predictions, references: Answers) -> float:
    """Return KorQuAD 1.0's F1, 0 to 100, over characters without spaces. Source: evaluate-v1.0.py."""
    return 100 * best_of(predictions, references, _korquad_f1, korquad_normalized)


def cmrc_exact_match(predictions: Predictions, references: Answers) -> float:
    """Return CMRC 2018's exact match, 0 to 100: case and the script's list of marks ignored."""
    return 100 * best_of(predictions, references, _equal, _cmrc_normalized)


def cmrc_f1(predictions: Predictions, references: Answers) -> float:
    """Return CMRC 2018's F1, 0 to 100, from the longest run of segments that both answers have.

    A Chinese character is a segment, and so is each word of the text between, cut as nltk.word_tokenize does except
    that sentences are not: a full stop is a word of its own only at the end. A straight quote stays what it is.
    Source: cmrc2018_evaluate.py v5 of ymcui/cmrc2018.
    """
    return 100 * best_of(predictions, references, _cmrc_f1)


@dataclass(frozen=True, slots=True)
class SquadV2Scores:
    """SQuAD 2.0's scores, 0 to 100: of all questions, of those with an answer and of those without."""

    exact: float
    f1: float
    has_answer_exact: float
    has_answer_f1: float
    no_answer_exact: float
    no_answer_f1: float


def squad_v2(predictions: Predictions, references: Answers) -> SquadV2Scores:
    """Score SQuAD 2.0; "" says that there is no answer, and no accepted answer means that there is none.

    Source: evaluate-v2.0.py, without its threshold (see `squad_v2_best`).
    """
    exact, f1 = _squad_v2_rows(predictions, references, _equal), _squad_v2_rows(predictions, references, _squad_v2_f1)
    answerable = [_is_answerable(real) for real in references]
    return SquadV2Scores(
        *[
            100 * ratio(sum(chosen), len(chosen))
            for wanted in (None, True, False)
            for rows in (exact, f1)
            for chosen in [[row for row, has in zip(rows, answerable, strict=True) if wanted in (None, has)]]
        ]
    )


def squad_v2_exact(predictions: Predictions, references: Answers) -> float:
    """Return SQuAD 2.0's exact match over all questions, 0 to 100."""
    return squad_v2(predictions, references).exact


def squad_v2_f1(predictions: Predictions, references: Answers) -> float:
    """Return SQuAD 2.0's F1 over all questions, 0 to 100."""
    return squad_v2(predictions, references).f1


def squad_v2_best(
    predictions: Predictions, references: Answers, no_answer: Sequence[float], score: Pair | None = None
) -> tuple[float, float]:
    """Return the best score any threshold on the no-answer scores gives, 0 to 100, and that threshold.

    A question whose no-answer score is above the threshold counts as answered with "". The score is the F1 unless
    another is given. Source: evaluate-v2.0.py, find_best_thresh.
    """
    check_rows(no_answer, references)
    rows = _squad_v2_rows(predictions, references, score or _squad_v2_f1)
    answerable = [_is_answerable(real) for real in references]
    best = now = float(answerable.count(False))
    threshold = 0.0
    for row in sorted(range(len(rows)), key=no_answer.__getitem__):
        now += rows[row] if answerable[row] else -1 if predictions[row] else 0
        if now > best:
            best, threshold = now, no_answer[row]
    return 100 * best / len(rows), threshold


def best_of(predictions: Predictions, references: Answers, pair: Pair, normalized: Callable[[str], str] = str) -> float:
    """Return the mean over questions of the best score against an accepted answer, all texts normalised first."""
    check_rows(predictions, references)
    rows = zip(predictions, references, strict=True)
    return fmean(_best(made, accepted(real), pair, normalized) for made, real in rows)


def squad_normalized(text: str) -> str:
    """Lower the case, delete ASCII punctuation and English articles, squeeze spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def korquad_normalized(text: str) -> str:
    """Put a space for each quote and bracket, lower the case, delete ASCII punctuation, squeeze spaces."""
    return " ".join(text.translate(_KORQUAD_QUOTES).lower().translate(_NO_PUNCTUATION).split())


def overlap_f1(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """Return the F1 of two bags of tokens; 0 where either is empty."""
    hits = sum((Counter(prediction) & Counter(reference)).values())
    return Tally(hits, len(prediction), len(reference)).score.f1


def run_f1(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """Return the F1 of the longest run of tokens that two sequences share."""
    matcher = SequenceMatcher(None, prediction, reference, autojunk=False)
    return Tally(matcher.find_longest_match().size, len(prediction), len(reference)).score.f1


def _best(made: str | None, texts: Sequence[str], pair: Pair, normalized: Callable[[str], str]) -> float:
    if made is None or not texts:
        return 0.0
    return max(pair(normalized(made), normalized(text)) for text in texts)


def _equal(prediction: str, reference: str) -> float:
    return float(prediction == reference)


def _squad_f1(prediction: str, reference: str) -> float:
    return overlap_f1(prediction.split(), reference.split())


def _squad_v2_f1(prediction: str, reference: str) -> float:
    """Two empty answers agree, which they do not in SQuAD 1.1's script."""
    if not prediction or not reference:
        return _equal(prediction, reference)
    return _squad_f1(prediction, reference)


def _korquad_f1(prediction: str, reference: str) -> float:
    return overlap_f1(prediction.replace(" ", ""), reference.replace(" ", ""))


def _squad_v2_rows(predictions: Predictions, references: Answers, pair: Pair) -> list[float]:
    check_rows(predictions, references)
    return [
        _best(made, [text for text in accepted(real) if squad_normalized(text)] or [""], pair, squad_normalized)
        for made, real in zip(predictions, references, strict=True)
    ]


def _is_answerable(reference: str | Sequence[str]) -> bool:
    return any(accepted(reference))


def _cmrc_normalized(text: str) -> str:
    return "".join(char for char in text.lower().strip() if char not in _CMRC_MARKS)


def _cmrc_f1(prediction: str, reference: str) -> float:
    return run_f1(list(_cmrc_segments(prediction)), list(_cmrc_segments(reference)))


def _cmrc_segments(text: str) -> Iterator[str]:
    """The marks are gone before words are cut, so `a-b` is one word."""
    for part in re.split(r"([\u4e00-\u9fa5])", _cmrc_normalized(text)):
        if "\u4e00" <= part[:1] <= "\u9fa5":
            yield part
        else:
            yield from _english_words(part)


def _english_words(text: str) -> list[str]:
    """Cut lower-case text after the Penn treebank: marks and the endings of `it's` and `don't` stand alone."""
    for pattern in (_FINAL_STOP, _MARK, _CLITIC):
        text = pattern.sub(r" \g<0> ", text)
    return _GROWN_TOGETHER.sub(r"\1 \2", text).split()
