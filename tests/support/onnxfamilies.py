"""One tiny model of random weights for each family that is exported to ONNX; it exports none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

import hubcache.models as ours

_BERT = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 64, "max_position_embeddings": 160}  # fmt: skip
_T5 = {"vocab_size": 100, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
_BART = {"vocab_size": 100, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
         "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}  # fmt: skip
_GPT2 = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 1}


def _made(module: Any, head: str, config: str, sizes: dict[str, Any], **more: Any) -> Callable[[], Any]:
    return lambda: getattr(module, head)(getattr(module, config)(**sizes, **more))


FAMILIES: dict[str, Callable[[], Any]] = {
    "bert": _made(transformers, "BertForSequenceClassification", "BertConfig", _BERT),
    "bert-bare": _made(transformers, "BertModel", "BertConfig", _BERT),
    "bert-choices": _made(transformers, "BertForMultipleChoice", "BertConfig", _BERT),
    "roberta": _made(transformers, "RobertaForTokenClassification", "RobertaConfig", _BERT, pad_token_id=1),
    "distilbert": _made(
        transformers, "DistilBertForQuestionAnswering", "DistilBertConfig",
        {"vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    ),
    "gpt2": _made(transformers, "GPT2LMHeadModel", "GPT2Config", _GPT2),
    "t5": _made(transformers, "T5ForConditionalGeneration", "T5Config", _T5, decoder_start_token_id=0),
    "bart": _made(transformers, "BartForConditionalGeneration", "BartConfig", _BART),
    "structbert": _made(ours, "SbertForMaskedLM", "SbertConfig", _BERT),
    "veco": _made(ours, "VecoForSequenceClassification", "VecoConfig", _BERT, pad_token_id=1),
    "veco-nlg": _made(ours, "VecoForConditionalGeneration", "VecoNlgConfig", _BART, pad_token_id=1),
    "palm": _made(ours, "PalmForConditionalGeneration", "PalmConfig", _BERT, dec_hidden_layers=1),
    "t5-mean": _made(ours, "T5EncoderForSequenceClassificationMean", "T5EncoderConfig", _T5),
    "t5-relation": _made(ours, "T5EncoderForSequenceClassificationREStartToken", "T5EncoderConfig", _T5, num_labels=3),
    "t5-crf": _made(ours, "T5EncoderForEntityRecognitionWithCRF", "T5EncoderConfig", _T5, num_labels=5),
}  # fmt: skip
"""By name; each call draws the same weights."""


def tiny(family: str) -> Any:
    """Make a family's model, for evaluation."""
    torch.manual_seed(1)
    return FAMILIES[family]().eval()
