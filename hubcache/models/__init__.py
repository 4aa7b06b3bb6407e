"""The models whose toolkits are gone, under their reference names; importing this registers them with transformers.

No conversion happens here: hubcache/convert makes what is loaded here out of the original checkpoints.
"""

from hubcache.models.beam_search import TextGenerator
from hubcache.models.crf import LinearChainCRF
from hubcache.models.palm import (
    PalmConfig,
    PalmForConditionalGeneration,
    PalmModel,
    PalmPreTrainedModel,
    PalmTokenizer,
    PalmTokenizerFast,
)
from hubcache.models.register import register
from hubcache.models.sbert import (
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
from hubcache.models.t5_encoder import (
    T5EncoderForEntityRecognitionWithCRF,
    T5EncoderForSequenceClassificationFirstSubmeanObjmean,
    T5EncoderForSequenceClassificationMean,
    T5EncoderForSequenceClassificationMeanSubmeanObjmean,
    T5EncoderForSequenceClassificationRE,
    T5EncoderForSequenceClassificationREAttention,
    T5EncoderForSequenceClassificationREAttentionAlone,
    T5EncoderForSequenceClassificationREMeanAttention,
    T5EncoderForSequenceClassificationREStartToken,
    T5EncoderForSequenceClassificationSimple,
    T5EncoderForTokenClassification,
)
from hubcache.models.veco import (
    VecoConfig,
    VecoForConditionalGeneration,
    VecoForMaskedLM,
    VecoForMultipleChoice,
    VecoForQuestionAnswering,
    VecoForSequenceClassification,
    VecoForTokenClassification,
    VecoModel,
    VecoNlgConfig,
    VecoNlgTokenizer,
    VecoPreTrainedModel,
    VecoTokenizer,
    VecoTokenizerFast,
)

__all__ = [
    "LinearChainCRF",
    "PalmConfig",
    "PalmForConditionalGeneration",
    "PalmModel",
    "PalmPreTrainedModel",
    "PalmTokenizer",
    "PalmTokenizerFast",
    "SbertConfig",
    "SbertForMaskedLM",
    "SbertForMultipleChoice",
    "SbertForNextSentencePrediction",
    "SbertForPreTraining",
    "SbertForQuestionAnswering",
    "SbertForSequenceClassification",
    "SbertForTokenClassification",
    "SbertLMHeadModel",
    "SbertModel",
    "SbertPreTrainedModel",
    "SbertTokenizer",
    "SbertTokenizerFast",
    "T5EncoderForEntityRecognitionWithCRF",
    "T5EncoderForSequenceClassificationFirstSubmeanObjmean",
    "T5EncoderForSequenceClassificationMean",
    "T5EncoderForSequenceClassificationMeanSubmeanObjmean",
    "T5EncoderForSequenceClassificationRE",
    "T5EncoderForSequenceClassificationREAttention",
    "T5EncoderForSequenceClassificationREAttentionAlone",
    "T5EncoderForSequenceClassificationREMeanAttention",
    "T5EncoderForSequenceClassificationREStartToken",
    "T5EncoderForSequenceClassificationSimple",
    "T5EncoderForTokenClassification",
    "TextGenerator",
    "VecoConfig",
    "VecoForConditionalGeneration",
    "VecoForMaskedLM",
    "VecoForMultipleChoice",
    "VecoForQuestionAnswering",
    "VecoForSequenceClassification",
    "VecoForTokenClassification",
    "VecoModel",
    "VecoNlgConfig",
    "VecoNlgTokenizer",
    "VecoPreTrainedModel",
    "VecoTokenizer",
    "VecoTokenizerFast",
]

register()
