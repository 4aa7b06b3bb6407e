"""Tells transformers' Auto classes of our models, so that AutoModelFor… and pipeline() find them; defines none."""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    T5Tokenizer,
)

from hubcache.models import palm, sbert, t5_encoder, veco

TOKENIZERS: dict[Any, type] = {
    sbert.SbertConfig: sbert.SbertTokenizer,
    palm.PalmConfig: palm.PalmTokenizer,
    veco.VecoConfig: veco.VecoTokenizer,
    veco.VecoNlgConfig: veco.VecoNlgTokenizer,
    t5_encoder.T5EncoderConfig: T5Tokenizer,
}
"""Each configuration, and the tokenizer of its checkpoints."""

MODELS: dict[Any, dict[Any, type]] = {
    AutoModel: {
        sbert.SbertConfig: sbert.SbertModel,
        palm.PalmConfig: palm.PalmModel,
        veco.VecoConfig: veco.VecoModel,
    },
    AutoModelForPreTraining: {sbert.SbertConfig: sbert.SbertForPreTraining},
    AutoModelForMaskedLM: {sbert.SbertConfig: sbert.SbertForMaskedLM, veco.VecoConfig: veco.VecoForMaskedLM},
    AutoModelForNextSentencePrediction: {sbert.SbertConfig: sbert.SbertForNextSentencePrediction},
    AutoModelForSequenceClassification: {
        sbert.SbertConfig: sbert.SbertForSequenceClassification,
        veco.VecoConfig: veco.VecoForSequenceClassification,
    },
    AutoModelForTokenClassification: {
        sbert.SbertConfig: sbert.SbertForTokenClassification,
        veco.VecoConfig: veco.VecoForTokenClassification,
    },
    AutoModelForQuestionAnswering: {
        sbert.SbertConfig: sbert.SbertForQuestionAnswering,
        veco.VecoConfig: veco.VecoForQuestionAnswering,
    },
    AutoModelForMultipleChoice: {
        sbert.SbertConfig: sbert.SbertForMultipleChoice,
        veco.VecoConfig: veco.VecoForMultipleChoice,
    },
    AutoModelForSeq2SeqLM: {
        palm.PalmConfig: palm.PalmForConditionalGeneration,
        veco.VecoNlgConfig: veco.VecoForConditionalGeneration,
    },
}
"""Each Auto class, and which model it makes of which configuration."""

T5_HEADS: dict[Any, tuple[type, ...]] = {
    AutoModelForSequenceClassification: t5_encoder.SEQUENCE_CLASSIFIERS,
    AutoModelForTokenClassification: t5_encoder.TOKEN_CLASSIFIERS,
}
"""The KE-T5 heads share a configuration: config.architectures chooses among them."""


def register() -> None:
    """Register every configuration, tokenizer and model; a second time changes nothing."""
    for config, tokenizer in TOKENIZERS.items():
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoTokenizer.register(config, tokenizer_class=tokenizer, exist_ok=True)
    for auto, models in MODELS.items():
        for config, model in models.items():
            auto.register(config, model, exist_ok=True)
    for auto, heads in T5_HEADS.items():
        auto.register(t5_encoder.T5EncoderConfig, heads, exist_ok=True)
