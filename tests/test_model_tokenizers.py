"""The three families' tokenizers against what the reference's fast tokenizers made of the same texts.

Each is loaded from a folder with nothing but the vocabulary, as a stranger has it.
"""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.goldens import golden

pytestmark = pytest.mark.train

VARIANTS = {
    "sbert_en_default": ("sbert.SbertTokenizer", "en_vocab.txt", {}),
    "sbert_en_do_lower_case_False": ("sbert.SbertTokenizer", "en_vocab.txt", {"do_lower_case": False}),
    "sbert_zh_default": ("sbert.SbertTokenizer", "zh_vocab.txt", {}),
    "sbert_zh_tokenize_chinese_chars_False": (
        "sbert.SbertTokenizer",
        "zh_vocab.txt",
        {"tokenize_chinese_chars": False},
    ),
    "palm_zh_default": ("palm.PalmTokenizer", "zh_vocab.txt", {}),
    "veco_default": ("veco.VecoTokenizer", "sentencepiece.bpe.model", {}),
}
VOCABULARY_NAMES = {"en_vocab.txt": "vocab.txt", "zh_vocab.txt": "vocab.txt"}


def tokenizer_class(name: str) -> Any:
    module, _, attribute = name.partition(".")
    return getattr(importlib.import_module(f"hubcache.models.{module}"), attribute)


class Variant:
    """One tokenizer, and what the reference's made of the same texts."""

    def __init__(self, name: str, folder: Path) -> None:
        class_name, vocabulary, options = VARIANTS[name]
        self.reference = json.loads(golden("sofa/tokenizers/cases.json").read_text(encoding="utf-8"))[name]
        self.cases = [(case["text"], case["fast"]) for case in self.reference["cases"]]
        shutil.copy(golden(f"sofa/tokenizers/{vocabulary}"), folder / VOCABULARY_NAMES.get(vocabulary, vocabulary))
        self.tokenizer = tokenizer_class(class_name).from_pretrained(folder, **options)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Variant:
    return Variant(request.param, tmp_path_factory.mktemp(request.param))


def test_ids_are_the_reference_s(variant: Variant) -> None:
    assert [variant.tokenizer(text)["input_ids"] for text, _ in variant.cases] == [
        fast["ids"] for _, fast in variant.cases
    ]


def test_tokens_are_the_reference_s(variant: Variant) -> None:
    assert [variant.tokenizer.tokenize(text) for text, _ in variant.cases] == [
        fast["tokens"] for _, fast in variant.cases
    ]


def test_ids_are_decoded_as_the_reference_s_are(variant: Variant) -> None:
    assert [variant.tokenizer.decode(fast["ids"]) for _, fast in variant.cases] == [
        fast["decode"] for _, fast in variant.cases
    ]


def test_ids_are_decoded_without_marks_as_the_reference_s_are(variant: Variant) -> None:
    assert [variant.tokenizer.decode(fast["ids"], skip_special_tokens=True) for _, fast in variant.cases] == [
        fast["decode_skip"] for _, fast in variant.cases
    ]


def test_pairs_are_the_reference_s(variant: Variant) -> None:
    pairs = variant.reference["pairs"]
    assert [dict(variant.tokenizer(pair["a"], pair["b"])) for pair in pairs] == [pair["fast"] for pair in pairs]


def test_pairs_are_cut_and_padded_to_twelve_as_the_reference_s_are(variant: Variant) -> None:
    pairs, told = variant.reference["pairs"], {"truncation": True, "max_length": 12, "padding": "max_length"}
    assert [dict(variant.tokenizer(pair["a"], pair["b"], **told)) for pair in pairs] == [
        pair["trunc12_fast"] for pair in pairs
    ]


def test_the_vocabulary_s_size_and_special_tokens_are_the_reference_s(variant: Variant) -> None:
    tokenizer = variant.tokenizer
    assert len(tokenizer) == variant.reference["len"]
    assert tokenizer.special_tokens_map == variant.reference["special_tokens_map"]
    assert tokenizer.model_input_names == variant.reference["model_input_names"]
    assert tokenizer.padding_side == variant.reference["padding_side"]


def test_a_saved_tokenizer_loads_to_the_same(variant: Variant, tmp_path: Path) -> None:
    variant.tokenizer.save_pretrained(tmp_path)
    again = type(variant.tokenizer).from_pretrained(tmp_path)
    assert [again.tokenize(text) for text, _ in variant.cases] == [fast["tokens"] for _, fast in variant.cases]
    assert [again.decode(fast["ids"]) for _, fast in variant.cases] == [fast["decode"] for _, fast in variant.cases]
