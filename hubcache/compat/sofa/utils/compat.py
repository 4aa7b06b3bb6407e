"""SOFA's module of registrations, by its name there; hubcache's own models are registered on import."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import AutoConfig, AutoTokenizer

from hubcache.compat.sofa.inference import inject_pipeline

__all__ = ["inject_model_backend", "inject_pipeline"]


AUTO_CLASSES = {
    "backbone": "AutoModel",
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "question_answering": "AutoModelForQuestionAnswering",
    "multiple_choice": "AutoModelForMultipleChoice",
    "pre_train": "AutoModelForPreTraining",
    "mlm": "AutoModelForMaskedLM",
    "nsp": "AutoModelForNextSentencePrediction",
    "s2slm": "AutoModelForSeq2SeqLM",
}
"""SOFA's words for what a class of a family is for, and the Auto class that it is then registered with."""

NOT_READ = frozenset({"module", "slow_to_fast_converter"})
"""SOFA's keywords that transformers 5 has no place for: it takes classes, not names to import them by."""


def inject_model_backend(
    name: str, full_name: str, config: Any, tokenizer: Any = None, tokenizer_fast: Any = None, **kwargs: Any
) -> None:
    """Tell transformers' Auto classes of a model family.

    `kwargs` have its classes by SOFA's words (backbone, sequence_classification, token_classification,
    question_answering, multiple_choice, pre_train, mlm, nsp, s2slm) or by the Auto class's name. `full_name`, `module`
    and `slow_to_fast_converter` are not read.

    Raises:
        TypeError: a keyword of neither kind.
    """
    del full_name
    models = {AUTO_CLASSES.get(word, word): model for word, model in kwargs.items() if word not in NOT_READ}
    unknown = [auto for auto in models if auto not in AUTO_CLASSES.values() and not hasattr(transformers, auto)]
    if unknown:
        raise TypeError(f"inject_model_backend() has no keyword {unknown[0]!r}, only {', '.join(AUTO_CLASSES)}")
    AutoConfig.register(name, config, exist_ok=True)
    if tokenizer_fast or tokenizer:
        AutoTokenizer.register(config, tokenizer_class=tokenizer_fast or tokenizer, exist_ok=True)
    for auto, model in models.items():
        getattr(transformers, auto).register(config, model, exist_ok=True)
