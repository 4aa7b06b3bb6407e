"""The figures that KE-T5's downstream code reports under its own rules, to compare with its published tables.

Each is computed over the whole corpus, where KE-T5 averages over batches. Its scores run from 0 to 100 except
Matthews'. For new work take labels.py, klue.py, answers.py, bleu.py and rouge.py: what is odd here is said below.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hubcache.train.metrics.answers import character_f1, exact_match
from hubcache.train.metrics.bleu import Answers
from hubcache.train.metrics.bleu import bleu as corpus_bleu
from hubcache.train.metrics.counts import check_rows, macro, ratio
from hubcache.train.metrics.labels import Labels, Rows, class_tallies
from hubcache.train.metrics.labels import accuracy as share_right
from hubcache.train.metrics.rouge import Kind, ascii_words
from hubcache.train.metrics.rouge import rouge as corpus_rouge
from hubcache.train.metrics.values import Values
from hubcache.train.metrics.values import pearson as pearson_correlation
from hubcache.train.metrics.values import spearman as spearman_correlation


def accuracy(predictions: Labels, references: Labels) -> float:
    """Return the share of right labels."""
    return 100 * share_right(predictions, references)


def re_f1(predictions: Labels, references: Labels) -> float:
    """Return "f1_score_micro_sample_weight": the accuracy on rows that have a relation (label above 0).

    A relation guessed where there is none costs nothing, so this is not KLUE's micro F1 (`klue.re_micro_f1`).
    """
    check_rows(predictions, references)
    guessed, true = np.asarray(predictions), np.asarray(references)
    return 100 * ratio(int(np.sum((guessed == true) & (true != 0))), int(np.sum(true != 0)))


def exact_match_str(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Return the share of texts equal as they stand; nothing is normalised, not even spaces."""
    return 100 * exact_match(predictions, references)


def f1_str(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Return the mean F1 of characters, spaces included."""
    return 100 * character_f1(predictions, references)


def bleu(predictions: Sequence[str], references: Answers) -> float:
    """Return BLEU with the "intl" tokens. KE-T5 reads lists of accepted texts transposed; here a row has its own."""
    return corpus_bleu(predictions, references, "intl")


def rouge(predictions: Sequence[str], references: Sequence[str], kind: Kind) -> float:
    """Return rouge_score's F1 without stemming: 0 for Korean, whose letters it drops.

    KE-T5 reports the median of 1,000 resampled means, a random number near this mean.
    """
    texts = [[text.replace(" . ", " .\n") for text in side] for side in (predictions, references)]
    return 100 * corpus_rouge(texts[0], texts[1], kind, ascii_words).f1


def pearson(predictions: Values, references: Values) -> float:
    """Return Pearson's correlation times 100; NaN where a side is constant."""
    return 100 * pearson_correlation(predictions, references)


def spearman(predictions: Values, references: Values) -> float:
    """Return Spearman's correlation times 100; NaN where a side is constant."""
    return 100 * spearman_correlation(predictions, references)


def token_accuracy(predictions: Rows, references: Rows, mask: Rows | None = None) -> float:
    """Return the share of right tokens, each row cut to the shorter side, of those with mask 1 where one is given.

    Without a mask an argmax over padding counts (O on O is right) while a CRF's list stops with the sentence, so the
    two are not comparable; `labels.token_accuracy` with ignored labels is.
    """
    check_rows(predictions, references)
    rows = list(zip(predictions, references, strict=True))
    pairs = [pair for made, real in rows for pair in zip(made, real, strict=False)]
    counted = [1] * len(pairs) if mask is None else [int(one) for row in mask for one in row]
    right = sum(weight for (made, real), weight in zip(pairs, counted, strict=True) if made == real)
    return 100 * ratio(right, sum(counted))


def character_tags(tokens: Sequence[int], char_to_token: Sequence[int | None], tags: Sequence[str]) -> list[int]:
    """Spread each token's tag over its characters: `B-` on the first, `I-` after it, O outside tokens."""
    outside = tags.index("O")
    spread: list[int] = []
    before = None
    for token in char_to_token:
        tag = outside if token is None else tokens[token]
        if token is not None and token == before and tags[tag].startswith("B-"):
            tag = tags.index("I-" + tags[tag][2:])
        spread.append(tag)
        before = token
    return spread


def char_f1(predictions: Rows, references: Rows) -> float:
    """Return KE-T5's "char_f1" of character tags, which a perfect tagger does not bring to 100.

    Per sentence: the mean F1, over the tags seen on either side, of the characters whose true tag is not O. Their sum
    is divided by the number of such characters, not by the sentences. 0 where there is none (KE-T5 divides by zero).
    Use `klue.ner_character_f1`. The tags are names, "O" outside.
    """
    check_rows(predictions, references)
    total = characters = 0.0
    for made, real in zip(predictions, references, strict=True):
        inside = [(guess, tag) for guess, tag in zip(made, real, strict=True) if tag != "O"]
        if inside:
            guessed, true = zip(*inside, strict=True)
            total += macro(class_tallies(guessed, true, sorted({*made, *real})).values()).f1
            characters += len(inside)
    return 100 * ratio(total, characters)
