"""ROUGE-1, 2, L and Lsum that also count Korean, Chinese and Japanese; on English equal to rouge_score 0.1.2.

rouge_score keeps only a-z and 0-9, so it gives identical Korean texts 0: here a word is letters and digits of any
script, and ideographs and kana stand alone. Not the ROUGE of SOFA (sofa.py) or KLUE (klue.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from hubcache.train.metrics.bleu import Answers, Tokens, accepted, ngrams
from hubcache.train.metrics.counts import Score, Tally, averaged, check_rows
from hubcache.train.metrics.porter import stem

Kind = Literal["rouge1", "rouge2", "rougeL", "rougeLsum"]
Words = Callable[[str], list[str]]

_ASCII_WORD = re.compile(r"[a-z0-9]+")
# Ideographs with their extensions, and kana; Hangul is written with spaces and stays in words.
_ALONE = ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))


def rouge(predictions: Sequence[str], references: Answers, kind: Kind, words: Words | None = None) -> Score:
    """Return the mean precision, recall and F1 over all rows, of each row's reference with the best F1.

    words: `unicode_words` unless given; `stemmed_words` is rouge_score's use_stemmer. In "rougeLsum" sentences stand
    on lines of their own. A row with an empty side scores 0.
    Source: Lin 2004; the clipping of Lsum is that of ROUGE-1.5.5.
    """
    check_rows(predictions, references)
    split = unicode_words if words is None else words
    rows = [
        max((_pair(made, text, kind, split) for text in accepted(real)), key=lambda score: score.f1)
        for made, real in zip(predictions, references, strict=True)
    ]
    return averaged(rows)


def unicode_words(text: str) -> list[str]:
    """Split lower-cased text into words of any script; each ideograph or kana is a word."""
    text = text.lower()
    if text.isascii():
        return _ASCII_WORD.findall(text)
    return "".join(map(_spaced, unicodedata.normalize("NFC", text))).split()


def ascii_words(text: str) -> list[str]:
    """Split lower-cased text into runs of a-z and 0-9, all else dropped (rouge_score's default)."""
    return _ASCII_WORD.findall(text.lower())


def stemmed_words(text: str) -> list[str]:
    """Split as `unicode_words`, and cut English words of more than three letters to their Porter stem."""
    return [stem(word) if len(word) > 3 and word.isascii() else word for word in unicode_words(text)]


@cache
def _spaced(char: str) -> str:
    if any(first <= ord(char) <= last for first, last in _ALONE):
        return f" {char} "
    return char if char.isalnum() or unicodedata.category(char)[0] == "M" else " "


def _pair(made: str, text: str, kind: Kind, split: Words) -> Score:
    if kind == "rougeLsum":
        return _summary([split(line) for line in made.split("\n")], [split(line) for line in text.split("\n")])
    guessed, real = split(made), split(text)
    if kind == "rougeL":
        return Tally(len(lcs_places(real, guessed)), len(guessed), len(real)).score
    size = 1 if kind == "rouge1" else 2
    own, wanted = ngrams(guessed, size), ngrams(real, size)
    return Tally(sum((own & wanted).values()), sum(own.values()), sum(wanted.values())).score


def _summary(guessed: Sequence[Tokens], real: Sequence[Tokens]) -> Score:
    """Each reference line is matched with every predicted line; a token counts no oftener than either side has it."""
    ours = ngrams([token for line in guessed for token in line], 1)
    common = ngrams(
        [
            line[place]
            for line in real
            for place in sorted({place for other in guessed for place in lcs_places(line, other)})
        ],
        1,
    )
    hits = sum((common & ours).values())
    return Tally(hits, sum(map(len, guessed)), sum(map(len, real))).score


def lcs_places(reference: Tokens, prediction: Tokens, keep_reference: bool = False) -> list[int]:
    """Return the places in `reference` of one longest common subsequence with `prediction`, ascending.

    Of several, the walk back from the ends that drops a reference token on a tie is taken, as in rouge_score; with
    keep_reference the one that drops a prediction token, as in PyPI rouge.
    """
    table = _lcs_table(reference, prediction)
    places: list[int] = []
    row, column = len(reference), len(prediction)
    while row and column:
        above, left = table[row - 1, column], table[row, column - 1]
        if reference[row - 1] == prediction[column - 1]:
            row, column = row - 1, column - 1
            places.append(row)
        elif above > left or (above == left and not keep_reference):
            row -= 1
        else:
            column -= 1
    return places[::-1]


def _lcs_table(reference: Tokens, prediction: Tokens) -> Any:
    """Lengths of the longest common subsequence of all prefixes, [reference + 1, prediction + 1]."""
    ids = {token: number for number, token in enumerate(dict.fromkeys([*reference, *prediction]))}
    columns = np.array([ids[token] for token in prediction], dtype=np.int64)
    table: Any = np.zeros((len(reference) + 1, len(prediction) + 1), dtype=np.int64)
    for row, token in enumerate(reference, start=1):
        taken = table[row - 1, :-1] + (columns == ids[token])
        table[row, 1:] = np.maximum.accumulate(np.maximum(taken, table[row - 1, 1:]))
    return table
