"""BLEU of a whole corpus as sacrebleu 2.6.0 computes it, 0 to 100; not the SOFA scripts' own BLEU (sofa.py)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hubcache.train.metrics.bleu_tokens import TOKENIZERS, Tokenizer
from hubcache.train.metrics.counts import check_rows

Answers = Sequence[str | Sequence[str]]
Tokens = Sequence[str]
Ngrams = Counter[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class NgramCounts:
    """What BLEU stands on, summed over a corpus; one entry an n-gram length, 1 first."""

    hits: list[int]
    guesses: list[int]
    length: int
    reference_length: int


def bleu(predictions: Sequence[str], references: Answers, tokenizer: Tokenizer = "13a") -> float:
    """Return corpus BLEU-4, 0 to 100, case kept, "exp" smoothing of n-gram lengths without a hit.

    references: a text or a list of accepted texts a row (sacrebleu wants the list the other way round). For Chinese
    take "zh"; for Korean "intl" or "char".
    Source: Papineni et al. 2002; Post 2018 (arXiv 1804.08771), signature `case:mixed|eff:no|smooth:exp`.
    """
    check_rows(predictions, references)
    split = TOKENIZERS[tokenizer]
    rows = [
        (split(made.rstrip()), [split(text.rstrip()) for text in accepted(real)])
        for made, real in zip(predictions, references, strict=True)
    ]
    return _score(count_ngrams(rows))


def accepted(reference: str | Sequence[str]) -> Sequence[str]:
    """Return the accepted texts of a row as a list, however many there are."""
    return [reference] if isinstance(reference, str) else reference


def ngrams(tokens: Tokens, size: int) -> Ngrams:
    """Count the n-grams of one length."""
    return Counter(tuple(tokens[begin : begin + size]) for begin in range(len(tokens) - size + 1))


def count_ngrams(rows: Sequence[tuple[Tokens, Sequence[Tokens]]], order: int = 4) -> NgramCounts:
    """Sum clipped n-gram hits of (prediction, references) rows, and the lengths of prediction and nearest reference.

    Of two references equally near the shorter one counts.
    """
    hits, guesses, length, reference_length = [0] * order, [0] * order, 0, 0
    for made, texts in rows:
        length += len(made)
        reference_length += min((abs(len(text) - len(made)), len(text)) for text in texts)[1]
        for place in range(order):
            most: Ngrams = Counter()
            for text in texts:
                most |= ngrams(text, place + 1)
            own = ngrams(made, place + 1)
            hits[place] += sum((own & most).values())
            guesses[place] += sum(own.values())
    return NgramCounts(hits, guesses, length, reference_length)


def _score(counts: NgramCounts) -> float:
    """A corpus in which no row has four tokens scores 0, as does one without a common word."""
    if not any(counts.hits) or 0 in counts.guesses:
        return 0.0
    smooth, total = 1.0, 0.0
    for hits, guesses in zip(counts.hits, counts.guesses, strict=True):
        if hits == 0:
            smooth *= 2
        total += math.log(100 * (hits or 1 / smooth) / guesses)
    brevity = min(0.0, 1 - counts.reference_length / counts.length)
    return math.exp(brevity + total / len(counts.hits))
