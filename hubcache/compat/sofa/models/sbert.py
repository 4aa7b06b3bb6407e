"""StructBERT by the names of SOFA's module; what hubcache has beyond these is in hubcache.models."""

from transformers.models.bert.modeling_bert import BertLayer as SbertLayer
from transformers.models.bert.tokenization_bert_legacy import BasicTokenizer, WordpieceTokenizer

from hubcache.models import (
    SbertConfig,
    SbertForMaskedLM,
    SbertForMultipleChoice,
    SbertForNextSentencePrediction,
    SbertForPreTraining,
    SbertForQuestionAnswering,
    SbertForSequenceClassification,
    SbertForTokenClassification,
    SbertLMHeadModel,
    SbertModel,
    SbertPreTrainedModel,
    SbertTokenizer,
    SbertTokenizerFast,
)

__all__ = [
    "BasicTokenizer",
    "SbertConfig",
    "SbertForMaskedLM",
    "SbertForMultipleChoice",
    "SbertForNextSentencePrediction",
    "SbertForPreTraining",
    "SbertForQuestionAnswering",
    "SbertForSequenceClassification",
    "SbertForTokenClassification",
    "SbertLMHeadModel",
    "SbertLayer",
    "SbertModel",
    "SbertPreTrainedModel",
    "SbertTokenizer",
    "SbertTokenizerFast",
    "WordpieceTokenizer",
]
