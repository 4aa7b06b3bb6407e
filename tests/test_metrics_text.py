"""BLEU is sacrebleu 2.6.0's, ROUGE on English rouge_score 0.1.2's, SOFA's both are the goldens'; answers are elsewhere.

The expected figures without a golden were computed by those two packages, which are not installed here.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from hubcache.train.metrics import sofa
from hubcache.train.metrics.bleu import bleu
from hubcache.train.metrics.bleu_tokens import TOKENIZERS
from hubcache.train.metrics.porter import stem
from hubcache.train.metrics.rouge import ascii_words, lcs_places, rouge, stemmed_words, unicode_words
from tests.support.goldens import golden

MADE = [
    'The U.S. bought 1,000 shares (3.5%) - "cheap" &amp; quick.',
    "서울시는 13일 공원을 열었다…",
    "今天 weather 很好，我们去 park 散步。",
]
REAL = [
    ['The US bought 1,000 shares (3.5 %), "cheap" & quick.', "America bought 1,000 shares - cheap & quick ."],
    ["서울시는 13일 새 공원을 열었다 .", "서울시는 공원을 열었다…"],
    ["今天天气很好，我们去 park 散步。", "今天 weather 不错。"],
]
SUMMARIES = [
    "Police killed the gunman.\nHe was running towards dying flies.",
    "the cats are sitting on the_mat",
]
WANTED = [
    "The gunman was killed by police officers.\nHe ran toward the dying fly.",
    "a cat sat on the mat, happily",
]
SOFA_CASES = [
    "zh_basic",
    "identical",
    "no_overlap",
    "short_and_long",
    "repeated_chars",
    "spaces_and_latin",
    "multi_ref",
]


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        ("13a", 52.20610958780909),
        ("intl", 47.45665088414392),
        ("zh", 58.3899712825618),
        ("char", 80.55678146255687),
    ],
)
def test_bleu_is_sacrebleus_in_every_tokenisation(tokenizer: Any, expected: float) -> None:
    assert bleu(MADE, REAL, tokenizer) == pytest.approx(expected, rel=1e-9)


def test_an_n_gram_length_without_a_hit_is_smoothed_as_sacrebleu_does() -> None:
    assert bleu(["a b c d e f"], ["a b x d e y"]) == pytest.approx(22.957488466614336, rel=1e-9)


def test_a_corpus_without_four_tokens_in_a_row_scores_0_as_in_sacrebleu() -> None:
    assert bleu(["a b c"], ["a b c"]) == 0.0


def test_bleu_is_of_the_corpus_and_no_mean_over_rows() -> None:
    rows = [bleu([made], [real]) for made, real in zip(MADE, REAL, strict=True)]
    assert abs(bleu(MADE, REAL) - sum(rows) / 3) > 1


@pytest.mark.parametrize(
    ("tokenizer", "text", "tokens"),
    [
        ("13a", "It's 1,000.5 (ca.)", "It's 1,000.5 ( ca . )"),
        ("13a", "a-\nb 3-4 &lt;x&gt;<skipped>", "ab 3 - 4 < x >"),
        ("intl", "«Oui», 3.5€…", "« Oui » , 3.5 € …"),
        ("zh", "很好。OK!", "很 好 。 OK !"),
        ("char", "a 中", "a 中"),
    ],
)
def test_a_tokenizer_splits_as_sacrebleu_does(tokenizer: str, text: str, tokens: str) -> None:
    assert TOKENIZERS[tokenizer](text) == tokens.split()


@pytest.mark.parametrize(
    ("kind", "plain", "stemmed"),
    [
        ("rouge1", 0.5186335403726707, 0.6335403726708074),
        ("rouge2", 0.21428571428571427, 0.21428571428571427),
        ("rougeL", 0.38819875776397517, 0.5031055900621118),
        ("rougeLsum", 0.43167701863354035, 0.5465838509316769),
    ],
)
def test_rouge_of_english_is_rouge_scores(kind: Any, plain: float, stemmed: float) -> None:
    own = (rouge(SUMMARIES, WANTED, kind).f1, rouge(SUMMARIES, WANTED, kind, stemmed_words).f1)
    assert own == pytest.approx((plain, stemmed), rel=1e-9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("서울시는 13일 공원을 열었다.", "서울시는 13일 공원을 열었다"),
        ("今天weather很好，去park。", "今 天 weather 很 好 去 park"),
        ("東京タワーへ行く", "東 京 タ ワ ー へ 行 く"),
        ("Crème_brûlée 3.5€", "crème brûlée 3 5"),
        ("हिन्दी में", "हिन्दी में"),
        ("\U00020000\U00020001", "\U00020000 \U00020001"),
    ],
)
def test_words_are_of_any_script(text: str, words: str) -> None:
    assert unicode_words(text) == words.split()


def test_korean_decomposed_and_composed_are_the_same_words() -> None:
    assert unicode_words("\u1109\u1165\u110b\u116e\u11af") == ["서울"]


@pytest.mark.parametrize("text", ["서울시는 공원을 열었다", "今天天气很好"])
def test_identical_texts_score_1_in_korean_and_chinese(text: str) -> None:
    assert [rouge([text], [text], kind).f1 for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum")] == [1.0] * 4


def test_the_reference_with_the_best_f1_counts() -> None:
    assert rouge(["a b"], [["x y", "a b c d"]], "rouge1").f1 == pytest.approx(2 / 3)


def test_a_mark_is_no_word_of_english_either_way() -> None:
    assert (
        unicode_words("The_cat's 2nd-best!") == ascii_words("The_cat's 2nd-best!") == ["the", "cat", "s", "2nd", "best"]
    )


@pytest.mark.parametrize(
    ("word", "root"),
    [
        *[("relational", "relat"), ("dying", "die"), ("flies", "fli"), ("dies", "die"), ("enjoy", "enjoy")],
        *[("happily", "happili"), ("hopping", "hop"), ("controlling", "control"), ("geologi", "geolog")],
        *[("agreed", "agre"), ("feed", "feed"), ("replacement", "replac"), ("adoption", "adopt"), ("yes", "ye")],
    ],
)
def test_a_stem_is_nltks(word: str, root: str) -> None:
    assert stem(word) == root


def test_a_common_subsequence_is_found_in_the_reference() -> None:
    assert lcs_places(list("abcde"), list("bxdea")) == [1, 3, 4]


@pytest.mark.parametrize("case", SOFA_CASES)
@pytest.mark.parametrize(("key", "version"), [("scores_head_a6d5afe", "head"), ("scores_7fce451", "release")])
def test_sofas_scores_are_the_goldens(case: str, key: str, version: Any) -> None:
    wanted = json.loads((golden("sofa/metrics") / "bleu_rouge.json").read_text("utf8"))["cases"][case]
    made = sofa.normalize(wanted["pred"])
    own = sofa.bleu_rouge(made, [sofa.normalize(texts) for texts in wanted["ref"]], rouge=version)
    assert own == pytest.approx(wanted[key], rel=1e-9, abs=0)


@pytest.mark.parametrize("case", SOFA_CASES)
def test_sofas_normalised_texts_are_the_goldens(case: str) -> None:
    wanted = json.loads((golden("sofa/metrics") / "bleu_rouge.json").read_text("utf8"))["cases"][case]
    assert [[text] for text in sofa.normalize(wanted["pred"])] == list(wanted["normalized_pred"].values())
    assert [sofa.normalize(texts) for texts in wanted["ref"]] == list(wanted["normalized_ref"].values())


def test_normalize_drops_white_space_of_every_kind() -> None:
    wanted = json.loads((golden("sofa/metrics") / "bleu_rouge.json").read_text("utf8"))["normalize"][0]
    assert sofa.normalize(wanted["inp"]) == wanted["out"]


def test_sofas_release_rouge_reads_sentences_and_counts_a_token_once() -> None:
    own = sofa.bleu_rouge(["a a b . c d"], ["c d . a b"], rouge="release")["Rouge-L"]
    assert own == pytest.approx(1.0, abs=1e-8)
