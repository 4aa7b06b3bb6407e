"""SOFA's scores of generated texts, in the form its scripts call them; hubcache.train.metrics.sofa computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hubcache.train.metrics.bleu import count_ngrams
from hubcache.train.metrics.sofa import bleu_rouge, normalize

__all__ = ["compute_bleu_rouge", "normalize"]


def compute_bleu_rouge(
    pred_dict: Mapping[str, Sequence[str]], ref_dict: Mapping[str, Sequence[str]], bleu_order: int = 4
) -> dict[str, float]:
    """Return Bleu-1..bleu_order and Rouge-L, 0 to 1, of lists of texts by key; the first of a prediction's counts.

    BLEU's totals and the ratio of lengths are printed, as the reference does.

    Raises: ValueError where the keys differ or there are none.
    """
    if pred_dict.keys() != ref_dict.keys():
        raise ValueError(f"{len(pred_dict)} predictions and {len(ref_dict)} references do not have the same keys")
    predictions = [pred_dict[key][0] for key in ref_dict]
    references = [list(texts) for texts in ref_dict.values()]
    scores = bleu_rouge(predictions, references, order=bleu_order)
    counts = count_ngrams(
        [(made.split(), [text.split() for text in texts]) for made, texts in zip(predictions, references, strict=True)],
        bleu_order,
    )
    totals = {"testlen": counts.length, "reflen": counts.reference_length}
    print({**totals, "guess": counts.guesses, "correct": counts.hits})
    print(f"ratio: {(counts.length + 1e-15) / (counts.reference_length + 1e-9)}")
    return scores
