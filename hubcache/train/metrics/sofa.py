"""BLEU-1..4 and ROUGE-L as SOFA's scripts report them for PALM, by character; not comparable with sacrebleu or rouge.

SOFA changed its ROUGE-L on 2022-09-01; the published tables were made with the older one. Both are here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from hubcache.train.metrics.bleu import Answers, Tokens, accepted, count_ngrams
from hubcache.train.metrics.counts import check_rows, harmonic
from hubcache.train.metrics.rouge import lcs_places

RougeVersion = Literal["head", "release"]
_TINY, _SMALL = 1e-15, 1e-9
_RELEASE_EPSILON = 1e-8


def normalize(texts: Sequence[str]) -> list[str]:
    """Write each text as its characters with one space between, white space dropped."""
    return [" ".join("".join(text.split())) for text in texts]


def bleu_rouge(
    predictions: Sequence[str], references: Answers, order: int = 4, rouge: RougeVersion = "head"
) -> dict[str, float]:
    """Return Bleu-1..order and Rouge-L, 0 to 1, of texts whose tokens stand between spaces (see `normalize`).

    rouge: "head" is SOFA's present one; "release" the one the tables came with (PyPI rouge 1.0.1).
    Source: SOFA utils/dureader_eval.py at a6d5afe and at 7fce451.
    """
    check_rows(predictions, references)
    pairs = [(made, accepted(real)) for made, real in zip(predictions, references, strict=True)]
    rows = [(made.split(), [text.split() for text in texts]) for made, texts in pairs]
    scores = {f"Bleu-{size}": value for size, value in enumerate(_bleu(rows, order), start=1)}
    if rouge == "head":
        scores["Rouge-L"] = fmean(_rouge_head(made, texts) for made, texts in rows)
    else:
        scores["Rouge-L"] = fmean(_rouge_release(made, texts[0]) for made, texts in pairs)
    return scores


def bleu4(predictions: Sequence[str], references: Answers) -> float:
    """Return SOFA's Bleu-4 of raw texts."""
    return _of_raw(predictions, references, "head")["Bleu-4"]


def rouge_l(predictions: Sequence[str], references: Answers) -> float:
    """Return SOFA's present ROUGE-L of raw texts."""
    return _of_raw(predictions, references, "head")["Rouge-L"]


def rouge_l_release(predictions: Sequence[str], references: Answers) -> float:
    """Return the ROUGE-L of SOFA's published tables, of raw texts."""
    return _of_raw(predictions, references, "release")["Rouge-L"]


def _of_raw(predictions: Sequence[str], references: Answers, rouge: RougeVersion) -> dict[str, float]:
    return bleu_rouge(normalize(predictions), [normalize(accepted(real)) for real in references], rouge=rouge)


def _bleu(rows: Sequence[tuple[Tokens, Sequence[Tokens]]], order: int) -> list[float]:
    """The tiny numbers stand for smoothing, in the places where SOFA has them."""
    counts = count_ngrams(rows, order)
    shortness = (counts.length + _TINY) / (counts.reference_length + _SMALL)
    penalty = math.exp(1 - 1 / shortness) if shortness < 1 else 1.0
    values, product = [], 1.0
    for size, (hits, guesses) in enumerate(zip(counts.hits, counts.guesses, strict=True), start=1):
        product *= (hits + _TINY) / (guesses + _SMALL)
        values.append(penalty * product ** (1 / size))
    return values


def _rouge_head(made: Tokens, texts: Sequence[Tokens]) -> float:
    lengths = [len(lcs_places(text, made)) for text in texts]
    if not made or not any(lengths):
        return 0.0
    recall = max(common / len(text) for common, text in zip(lengths, texts, strict=True) if text)
    return harmonic(max(lengths) / len(made), recall, beta=1.2)


def _rouge_release(made: str, text: str) -> float:
    """Sentences end at full stops, and a token counts once however often it comes; an empty side scores 0."""
    guessed, real = _sentences(made), _sentences(text)
    if not guessed or not real:
        return 0.0
    common = {
        sentence[place]
        for sentence in real
        for other in guessed
        for place in lcs_places(sentence, other, keep_reference=True)
    }
    precision = len(common) / len({token for sentence in guessed for token in sentence})
    recall = len(common) / len({token for sentence in real for token in sentence})
    return 2 * precision * recall / (precision + recall + _RELEASE_EPSILON)


def _sentences(text: str) -> list[list[str]]:
    """A part of blanks only is one empty token there, and here."""
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]
