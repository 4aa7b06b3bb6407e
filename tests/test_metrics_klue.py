"""KLUE's official figures and KE-T5's own are the goldens', to 1e-9; SQuAD-like answers are elsewhere."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hubcache.train.metrics import ke_t5, klue
from hubcache.train.metrics.labels import matthews
from tests.support.goldens import golden

IOB2 = [f"{place}-{kind}" for kind in ("DT", "LC", "OG", "PS", "QT", "TI") for place in "BI"] + ["O"]
BATCHED = {
    "accuracy_dict": ("accuracy", ke_t5.accuracy),
    "f1_score_micro_sample_weight_dict": ("f1_score_micro_sample_weight", ke_t5.re_f1),
    "exact_match_str_dict": ("exact_match_str", ke_t5.exact_match_str),
    "f1_str_dict": ("f1_str", ke_t5.f1_str),
    "pearson_corrcoef_dict": ("pearson_corrcoef", ke_t5.pearson),
    "spearman_corrcoef_dict": ("spearman_corrcoef", ke_t5.spearman),
}


def close(expected: Any) -> Any:
    """Allow what the goldens' README allows; NaN is NaN."""
    return pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


def official() -> dict[str, Any]:
    """Read KLUE's golden."""
    found: dict[str, Any] = json.loads((golden("ket5/metrics") / "klue_official.json").read_text("utf8"))
    return found


def own_cases(name: str) -> list[Any]:
    """Read KE-T5's golden cases of one function."""
    found: list[Any] = json.loads((golden("ket5/metrics") / "ket5_downstreams.json").read_text("utf8"))[name]
    return found


def test_ynat_macro_f1_is_the_golden() -> None:
    case = official()["ynat_macro_f1"]
    assert klue.ynat_macro_f1(case["preds"], case["targets"]) == close(case["score"])


def test_nli_accuracy_is_the_golden() -> None:
    case = official()["klue_nli_acc"]
    assert klue.nli_accuracy(case["preds"], case["targets"]) == close(case["score"])


def test_sts_pearson_and_f1_are_the_goldens() -> None:
    case = official()["klue_sts"]
    own = (klue.sts_pearson(case["preds"], case["labels"]), klue.sts_f1(case["preds"], case["labels"]))
    assert own == close((case["pearsonr"], case["f1"]))


def test_ner_entity_and_character_f1_are_the_goldens() -> None:
    case = official()["klue_ner"]
    made, real = ([[case["label_list"][tag] for tag in case[side]]] for side in ("preds", "labels"))
    own = (klue.ner_entity_f1(made, real), klue.ner_character_f1(made, real))
    assert own == close((case["entity_macro_f1"], case["char_macro_f1"]))


def test_the_tags_are_in_the_goldens_order() -> None:
    assert list(klue.NER_TAGS) == official()["klue_ner"]["label_list"]


def test_re_micro_f1_is_the_golden() -> None:
    case = official()["klue_re"]
    assert klue.re_micro_f1(case["preds"], case["labels"]) == close(case["micro_f1"])


def test_a_relation_guessed_where_there_is_none_lowers_klues_f1_but_not_ke_t5s() -> None:
    made, real = [3, 5, 7], [3, 5, 0]
    assert (klue.re_micro_f1(made, real), ke_t5.re_f1(made, real)) == pytest.approx((80.0, 100.0))


def test_re_auprc_is_the_golden() -> None:
    arrays = np.load(golden("ket5/metrics") / "klue_re_auprc.npz")
    own = klue.re_auprc(arrays["probs"], arrays["labels"])
    assert own == close(official()["klue_re"]["auprc"])


def test_a_relation_that_no_reference_has_is_left_out_of_auprc() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]])
    assert klue.re_auprc(probabilities, [0, 1]) == pytest.approx(klue.re_auprc(probabilities[:, :2], [0, 1]))


@pytest.mark.parametrize("row", range(7))
def test_an_mrc_answer_scores_as_in_the_golden(row: int) -> None:
    case = official()["klue_mrc"]["cases"][row]
    made, real = [case["pred"]], [case["refs"]]
    own = (klue.mrc_exact_match(made, real), klue.mrc_rouge_w(made, real))
    assert own == close((100 * case["em"], 100 * case["rouge_w"]))


@pytest.mark.parametrize("row", range(7))
def test_an_mrc_answer_is_normalised_as_in_the_golden(row: int) -> None:
    case = official()["klue_mrc"]["cases"][row]
    assert klue.mrc_normalized(case["pred"]) == case["norm_pred"]
    assert [klue.mrc_normalized(text) for text in case["refs"]] == case["norm_refs"]


def test_an_unanswerable_mrc_question_wants_an_empty_answer() -> None:
    assert klue.mrc_rouge_w(["", "답"], [[], []]) == 50.0


@pytest.mark.parametrize("function", sorted(BATCHED))
def test_ke_t5s_figures_are_the_goldens(function: str) -> None:
    key, own = BATCHED[function]
    for case in own_cases(function):
        expected = case["output"][key]["score"]
        score = own(case["input"]["predictions"], case["input"]["labels"])
        assert score == close(float("nan") if expected is None else expected)


def test_ke_t5s_matthews_is_the_plain_one() -> None:
    for case in own_cases("matthews_corrcoef_dict"):
        own = matthews(case["input"]["predictions"], case["input"]["labels"])
        assert own == close(case["output"]["matthews_corrcoef"]["score"])


def test_ke_t5s_bleu_is_the_golden() -> None:
    case = own_cases("bleu_dict")[0]
    own = ke_t5.bleu(case["input"]["predictions"], case["input"]["labels"])
    assert own == close(case["output"]["bleu"]["score"])


def test_ke_t5s_bleu_of_lists_is_the_golden_once_the_lists_are_turned() -> None:
    case = own_cases("bleu_dict")[1]
    per_row = [list(texts) for texts in zip(*case["input"]["labels"], strict=True)]
    own = ke_t5.bleu(case["input"]["predictions"], per_row)
    assert own == close(case["output"]["bleu"]["score"])


@pytest.mark.parametrize("row", range(4))
def test_ke_t5s_rouge_is_the_golden(row: int) -> None:
    case = own_cases("rouge_dict")[row]
    for kind, expected in case["output"].items():
        own = ke_t5.rouge(case["input"]["predictions"], case["input"]["labels"], kind)
        assert own == close(expected["score"])


@pytest.mark.parametrize("name", ["token_accuracy_dict", "token_accuracy_dict_variable_length"])
def test_ke_t5s_token_accuracy_is_the_golden(name: str) -> None:
    for case in own_cases(name):
        given = case["input"]
        own = ke_t5.token_accuracy(given["predictions"], given["labels"], given.get("targets_attention_mask"))
        assert own == close(case["output"]["token_accuracy"]["score"])


@pytest.mark.parametrize("row", range(3))
def test_token_tags_are_spread_over_characters_as_in_the_golden(row: int) -> None:
    case = own_cases("create_char_tags")[row]
    assert ke_t5.character_tags(case["prediction"], case["char_to_token"], IOB2) == case["output"]


def tags_of(case: dict[str, Any]) -> tuple[list[list[str]], list[list[str]]]:
    """Return predicted and true character tags of a golden case."""
    given = case["input"]
    spread = [
        ke_t5.character_tags(tokens, places, case["kwargs"]["iob2_tags"])
        for tokens, places in zip(given["predictions"], given["klue_metric"]["char_to_token"], strict=True)
    ]
    return named(spread), named(given["klue_metric"]["char_tag"])


def named(rows: list[list[int]]) -> list[list[str]]:
    """Write tag numbers as names."""
    return [[IOB2[tag] for tag in row] for row in rows]


@pytest.mark.parametrize("row", [0, 1, 3])
def test_ke_t5s_char_f1_is_the_golden(row: int) -> None:
    case = own_cases("char_level_f1_score_klue_dict")[row]
    assert ke_t5.char_f1(*tags_of(case)) == close(case["output"]["char_f1"]["score"])


def test_ke_t5s_char_f1_without_an_entity_is_0_where_it_divides_by_zero() -> None:
    case = own_cases("char_level_f1_score_klue_dict")[2]
    assert "ZeroDivisionError" in case["output"]["ERROR"]
    assert ke_t5.char_f1(*tags_of(case)) == 0.0


def test_a_figure_is_of_the_corpus_where_ke_t5_averages_over_batches() -> None:
    meter = json.loads((golden("ket5/metrics") / "ket5_downstreams.json").read_text("utf8"))["MetricMeter"]
    sides = [[value for batch in meter["batches"] for value in batch[key]] for key in ("predictions", "labels")]
    batches = [
        (ke_t5.pearson(batch["predictions"], batch["labels"]), len(batch["labels"])) for batch in meter["batches"]
    ]
    mean = sum(score * rows for score, rows in batches) / sum(rows for _, rows in batches)
    assert mean == close(meter["average_scores"]["pearson_corrcoef"]["score"])
    assert ke_t5.pearson(*sides) == close(100 * np.corrcoef(sides[0], sides[1])[0, 1])
