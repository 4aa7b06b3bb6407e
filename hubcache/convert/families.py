"""The families of original checkpoints, each as what is told of it in other modules; it converts nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hubcache.convert import layouts, naming
from hubcache.convert.layouts import Layout
from hubcache.convert.naming import Naming

FamilyName = Literal["sbert", "palm", "veco", "veco_nlg", "t5_encoder"]
Architecture = Callable[[str, Collection[str]], str]
"""From the architecture that a config names ("" for none) and the groups found, to the class that loads all of it."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family: its model_type, its modelling files (the first has the classes), and what its checkpoints are.

    `vocabulary` is the file that its tokenizer needs, `tokenizer` the tokenizer_config.json where there is none.
    """

    name: FamilyName
    model_type: str
    modules: tuple[str, ...]
    config_class: str
    layout: Callable[[Mapping[str, Any]], Layout]
    naming: Naming
    architecture: Architecture
    auto_classes: Mapping[str, str]
    vocabulary: str
    tokenizer: Mapping[str, Any]

    def auto_map(self, architecture: str) -> dict[str, str]:
        """Say for trust_remote_code which class each Auto class makes."""
        module = self.modules[0].removesuffix(".py")
        chosen = self.auto_classes if self.auto_classes else _t5_auto_class(architecture)
        return {auto: f"{module}.{name}" for auto, name in {"AutoConfig": self.config_class, **chosen}.items()}


def _stated(told: str, kinds: Collection[str]) -> str:
    """Return which of the kinds of classifier a config's architecture is, the first where it is none of them."""
    first, *others = kinds
    return next((kind for kind in others if told.endswith(f"For{kind}")), first)


def _sbert_architecture(told: str, groups: Collection[str]) -> str:
    if "classifier" in groups:
        return f"SbertFor{_stated(told, ('SequenceClassification', 'TokenClassification', 'MultipleChoice'))}"
    if "qa_outputs" in groups:
        return "SbertForQuestionAnswering"
    words, pairs = "cls.predictions" in groups, "cls.seq_relationship" in groups
    if words and pairs:
        return "SbertForPreTraining"
    return "SbertForMaskedLM" if words else "SbertForNextSentencePrediction" if pairs else "SbertModel"


def _veco_architecture(told: str, groups: Collection[str]) -> str:
    if "classifier.out_proj" in groups:
        return "VecoForSequenceClassification"
    if "classifier" in groups:
        return f"VecoFor{_stated(told, ('TokenClassification', 'MultipleChoice'))}"
    if "qa_outputs" in groups:
        return "VecoForQuestionAnswering"
    return "VecoForMaskedLM" if "lm_head" in groups else "VecoModel"


def _palm_architecture(_told: str, _groups: Collection[str]) -> str:
    return "PalmForConditionalGeneration"


def _veco_nlg_architecture(_told: str, _groups: Collection[str]) -> str:
    return "VecoForConditionalGeneration"


def _t5_architecture(told: str, _groups: Collection[str]) -> str:
    return told


def _t5_auto_class(architecture: str) -> dict[str, str]:
    kind = "SequenceClassification" if "ForSequenceClassification" in architecture else "TokenClassification"
    return {f"AutoModelFor{kind}": architecture}


def _auto_classes(prefix: str, kinds: Collection[str]) -> dict[str, str]:
    return {"AutoModel": f"{prefix}Model", **{f"AutoModelFor{kind}": f"{prefix}For{kind}" for kind in kinds}}


_HEADS = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")

# transformers' own class computes the same, and is known where hubcache is not.
_WORD_PIECE: Mapping[str, Any] = {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": True,
    "model_max_length": 512,
    "clean_up_tokenization_spaces": True,
}

FAMILIES: Mapping[FamilyName, Family] = {
    family.name: family
    for family in (
        Family(
            "sbert",
            model_type="sbert",
            modules=("sbert.py",),
            config_class="SbertConfig",
            layout=layouts.sbert,
            naming=naming.SBERT,
            architecture=_sbert_architecture,
            auto_classes=_auto_classes("Sbert", (*_HEADS, "PreTraining", "NextSentencePrediction")),
            vocabulary="vocab.txt",
            tokenizer=_WORD_PIECE,
        ),
        Family(
            "palm",
            model_type="palm",
            modules=("palm.py",),
            config_class="PalmConfig",
            layout=layouts.palm,
            naming=naming.PALM,
            architecture=_palm_architecture,
            auto_classes={"AutoModel": "PalmModel", "AutoModelForSeq2SeqLM": "PalmForConditionalGeneration"},
            vocabulary="vocab.txt",
            tokenizer=_WORD_PIECE,
        ),
        Family(
            "veco",
            model_type="veco",
            modules=("veco.py",),
            config_class="VecoConfig",
            layout=layouts.veco,
            naming=naming.VECO,
            architecture=_veco_architecture,
            auto_classes=_auto_classes("Veco", _HEADS),
            vocabulary="sentencepiece.bpe.model",
            tokenizer={"tokenizer_class": "VecoTokenizer", "model_max_length": 512},
        ),
        Family(
            "veco_nlg",
            model_type="veco_nlg",
            modules=("veco.py",),
            config_class="VecoNlgConfig",
            layout=layouts.veco_nlg,
            naming=naming.VECO_NLG,
            architecture=_veco_nlg_architecture,
            auto_classes={"AutoModelForSeq2SeqLM": "VecoForConditionalGeneration"},
            vocabulary="sentencepiece.bpe.model",
            tokenizer={"tokenizer_class": "VecoNlgTokenizer", "model_max_length": 512},
        ),
        Family(
            "t5_encoder",
            model_type="t5_encoder",
            modules=("t5_encoder.py", "crf.py"),
            config_class="T5EncoderConfig",
            layout=layouts.t5_encoder,
            naming=naming.T5_ENCODER,
            architecture=_t5_architecture,
            auto_classes={},
            vocabulary="spiece.model",
            tokenizer={},
        ),
    )
}
