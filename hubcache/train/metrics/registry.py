"""The metrics a task may name by a string, each with its inputs and its better direction; computes none itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from hubcache.train.metrics import answers, bleu, entities, ke_t5, klue, labels, rouge, sofa, values

Inputs = Literal["labels", "values", "probabilities", "label_rows", "token_rows", "tag_rows", "texts", "answers"]
"""What predictions and references are, row by row.

labels          one label a row on both sides
values          one number a row on both sides
probabilities   a row of class probabilities against one label
label_rows      0/1 rows, one column a label
token_rows      one label a token; references hold -100 where nothing is asked
tag_rows        one tag name a token (for KLUE-NER and `ke_t5_char_f1` a character)
texts           a text against a text or a list of accepted ones
answers         the same for short answers, where a prediction may be None and a list empty (no answer)
"""


@dataclass(frozen=True, slots=True)
class Metric:
    """A named metric; `compute(predictions, references)` takes a whole corpus and returns one figure.

    perfect is the figure of perfect predictions (1 or 100; 0 for an error), so that a report can label its axis.
    """

    name: str
    compute: Callable[[Any, Any], float]
    inputs: Inputs
    perfect: float = 1.0
    greater_is_better: bool = True


def metric(name: str) -> Metric:
    """Return the metric of that name. Raises: ValueError, with all names."""
    if name not in METRICS:
        raise ValueError(f"no metric is called {name!r}; there are {', '.join(sorted(METRICS))}")
    return METRICS[name]


def scores(names: Iterable[str], predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
    """Compute several metrics of one kind of inputs over a whole corpus."""
    return {name: metric(name).compute(predictions, references) for name in names}


def is_better(chosen: Metric, new: float, best: float | None) -> bool:
    """Tell whether a figure beats the best so far (None: there is none yet); a tie does not, and NaN never does."""
    if math.isnan(new) or best is None:
        return not math.isnan(new)
    return new > best if chosen.greater_is_better else new < best


def _rouge_f1(kind: rouge.Kind, stemmed: bool) -> Callable[[Any, Any], float]:
    words = rouge.stemmed_words if stemmed else None
    return lambda predictions, references: rouge.rouge(predictions, references, kind, words).f1


_KINDS: tuple[rouge.Kind, ...] = ("rouge1", "rouge2", "rougeL", "rougeLsum")

_ALL = (
    Metric("accuracy", labels.accuracy, "labels"),
    Metric("macro_f1", labels.macro_f1, "labels"),
    Metric("micro_f1", labels.micro_f1, "labels"),
    Metric("binary_f1", labels.binary_f1, "labels"),
    Metric("matthews", labels.matthews, "labels"),
    Metric("mse", values.mse, "values", perfect=0.0, greater_is_better=False),
    Metric("pearson", values.pearson, "values"),
    Metric("spearman", values.spearman, "values"),
    Metric("multilabel_exact_match", labels.multilabel_exact_match, "label_rows"),
    Metric("multilabel_micro_f1", labels.multilabel_micro_f1, "label_rows"),
    Metric("multilabel_macro_f1", labels.multilabel_macro_f1, "label_rows"),
    Metric("token_accuracy", labels.token_accuracy, "token_rows"),
    Metric("entity_f1", entities.entity_f1, "tag_rows"),
    Metric("entity_precision", entities.entity_precision, "tag_rows"),
    Metric("entity_recall", entities.entity_recall, "tag_rows"),
    Metric("entity_f1_iob2", entities.entity_f1_iob2, "tag_rows"),
    Metric("entity_f1_iobes", entities.entity_f1_iobes, "tag_rows"),
    Metric("exact_match", answers.exact_match, "answers"),
    Metric("character_f1", answers.character_f1, "answers"),
    Metric("squad_exact_match", answers.squad_exact_match, "answers", 100.0),
    Metric("squad_f1", answers.squad_f1, "answers", 100.0),
    Metric("squad_v2_exact_match", answers.squad_v2_exact, "answers", 100.0),
    Metric("squad_v2_f1", answers.squad_v2_f1, "answers", 100.0),
    Metric("korquad_exact_match", answers.korquad_exact_match, "answers", 100.0),
    Metric("korquad_f1", answers.korquad_f1, "answers", 100.0),
    Metric("cmrc_exact_match", answers.cmrc_exact_match, "answers", 100.0),
    Metric("cmrc_f1", answers.cmrc_f1, "answers", 100.0),
    Metric("bleu", bleu.bleu, "texts", 100.0),
    *(Metric(f"bleu_{name}", partial(bleu.bleu, tokenizer=name), "texts", 100.0) for name in ("intl", "zh", "char")),
    *(Metric(kind, _rouge_f1(kind, stemmed=False), "texts") for kind in _KINDS),
    *(Metric(f"{kind}_stemmed", _rouge_f1(kind, stemmed=True), "texts") for kind in _KINDS),
    Metric("sofa_bleu4", sofa.bleu4, "texts"),
    Metric("sofa_rouge_l", sofa.rouge_l, "texts"),
    Metric("sofa_rouge_l_release", sofa.rouge_l_release, "texts"),
    Metric("klue_ynat_macro_f1", klue.ynat_macro_f1, "labels", 100.0),
    Metric("klue_nli_accuracy", klue.nli_accuracy, "labels", 100.0),
    Metric("klue_sts_pearson", klue.sts_pearson, "values", 100.0),
    Metric("klue_sts_f1", klue.sts_f1, "values", 100.0),
    Metric("klue_ner_entity_f1", klue.ner_entity_f1, "tag_rows", 100.0),
    Metric("klue_ner_character_f1", klue.ner_character_f1, "tag_rows", 100.0),
    Metric("klue_re_micro_f1", klue.re_micro_f1, "labels", 100.0),
    Metric("klue_re_auprc", klue.re_auprc, "probabilities", 100.0),
    Metric("klue_mrc_exact_match", klue.mrc_exact_match, "answers", 100.0),
    Metric("klue_mrc_rouge_w", klue.mrc_rouge_w, "answers", 100.0),
    Metric("ke_t5_accuracy", ke_t5.accuracy, "labels", 100.0),
    Metric("ke_t5_re_f1", ke_t5.re_f1, "labels", 100.0),
    Metric("ke_t5_exact_match_str", ke_t5.exact_match_str, "texts", 100.0),
    Metric("ke_t5_f1_str", ke_t5.f1_str, "texts", 100.0),
    Metric("ke_t5_bleu", ke_t5.bleu, "texts", 100.0),
    *(Metric(f"ke_t5_{kind}", partial(ke_t5.rouge, kind=kind), "texts", 100.0) for kind in _KINDS),
    Metric("ke_t5_pearson", ke_t5.pearson, "values", 100.0),
    Metric("ke_t5_spearman", ke_t5.spearman, "values", 100.0),
    Metric("ke_t5_token_accuracy", ke_t5.token_accuracy, "token_rows", 100.0),
    Metric("ke_t5_char_f1", ke_t5.char_f1, "tag_rows", 100.0),
)
METRICS = {one.name: one for one in _ALL}
