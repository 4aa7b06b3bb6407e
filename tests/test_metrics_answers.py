"""Answers are scored as the official scripts of SQuAD, KorQuAD 1.0 and CMRC 2018 do; KLUE's MRC is elsewhere.

KorQuAD has a golden; SQuAD's and CMRC's figures were worked out by hand from what their scripts say.
"""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import Any

import pytest

from hubcache.train.metrics import answers
from tests.support.goldens import golden


def korquad() -> dict[str, Any]:
    """Read KorQuAD's golden."""
    found: dict[str, Any] = json.loads((golden("ket5/metrics") / "korquad_v1.json").read_text("utf8"))
    return found


@pytest.mark.parametrize("row", range(8))
def test_a_korquad_answer_scores_as_in_the_golden(row: int) -> None:
    case = korquad()["cases"][row]
    made, real = [case["pred"]], [case["refs"]]
    own = (answers.korquad_exact_match(made, real), answers.korquad_f1(made, real))
    assert own == pytest.approx((100 * case["em"], 100 * case["f1"]), rel=1e-9)


@pytest.mark.parametrize("row", range(8))
def test_a_korquad_answer_is_normalised_as_in_the_golden(row: int) -> None:
    case = korquad()["cases"][row]
    assert answers.korquad_normalized(case["pred"]) == case["norm_pred"]
    assert [answers.korquad_normalized(text) for text in case["refs"]] == case["norm_refs"]


def test_a_question_without_prediction_counts_as_in_the_korquad_golden() -> None:
    found = korquad()
    made = [*(case["pred"] for case in found["cases"]), None]
    real = [*(case["refs"] for case in found["cases"]), ["서울"]]
    own = {"exact_match": answers.korquad_exact_match(made, real), "f1": answers.korquad_f1(made, real)}
    assert own == pytest.approx(found["dataset_total_with_one_missing_prediction"], rel=1e-9)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [("The  U.S. Army!", "us army"), ("an-a theatre", "ana theatre"), ("A", ""), ("Beyoncé's", "beyoncés")],
)
def test_squad_drops_case_marks_articles_and_spaces(text: str, normalized: str) -> None:
    assert answers.squad_normalized(text) == normalized


@pytest.mark.parametrize(
    ("made", "real", "exact", "f1"),
    [
        ("the Norman dynasty", ["Norman dynasty."], 100, 100),
        ("in the 10th century", ["10th century", "the 10th"], 0, 80),
        ("a a b", ["a x b b"], 0, 50),
        ("", ["x"], 0, 0),
        ("the", ["a"], 100, 0),
    ],
)
def test_squad_1_scores_words(made: str, real: list[str], exact: float, f1: float) -> None:
    own = (answers.squad_exact_match([made], [real]), answers.squad_f1([made], [real]))
    assert own == pytest.approx((exact, f1))


SQUAD_V2_MADE = ["Norman dynasty", "", "wrong", "", "10th century king"]
SQUAD_V2_REAL = [["the Norman dynasty"], [], [], ["France"], ["10th century"]]


def test_squad_2_scores_answerable_and_unanswerable_questions_apart() -> None:
    own = answers.squad_v2(SQUAD_V2_MADE, SQUAD_V2_REAL)
    expected = answers.SquadV2Scores(40.0, 56.0, 100 / 3, 60.0, 50.0, 50.0)
    assert astuple(own) == pytest.approx(astuple(expected))


def test_squad_2_without_unanswerable_questions_scores_them_0() -> None:
    assert answers.squad_v2(["x"], [["x"]]).no_answer_f1 == 0.0


def test_a_squad_2_answer_of_articles_only_is_no_answer() -> None:
    assert answers.squad_v2_exact([""], [["the"]]) == 100


def test_the_best_squad_2_threshold_turns_unsure_answers_into_none() -> None:
    made, real = ["a1", "b1", "c1", "d1"], [["a1"], ["b1"], [], []]
    assert answers.squad_v2_best(made, real, [0.1, 0.6, 0.3, 0.9]) == (75.0, 0.1)


def test_a_threshold_that_keeps_all_answers_is_found() -> None:
    assert answers.squad_v2_best(["a1", "b1"], [["a1"], ["b1"]], [0.2, 0.4]) == (100.0, 0.4)


@pytest.mark.parametrize(
    ("made", "real", "exact", "f1"),
    [
        ("《红楼梦》", ["红楼梦"], 100, 100),
        ("红楼梦是小说", ["红楼梦"], 0, 200 * (3 / 6) / (1.5)),
        ("北京大学", ["北大", "北京的大学"], 0, 200 * (2 / 4 * 2 / 5) / (2 / 4 + 2 / 5)),
        ("NBA总冠军", ["nba总冠军。"], 100, 100),
        ("in 1,998 don't go.", ["1,998"], 0, 200 * (1 / 6) / (7 / 6)),
        ("2008-2009年", ["20082009年"], 100, 100),
        ("", ["北京"], 0, 0),
    ],
)
def test_cmrc_scores_the_longest_run_of_segments(made: str, real: list[str], exact: float, f1: float) -> None:
    own = (answers.cmrc_exact_match([made], [real]), answers.cmrc_f1([made], [real]))
    assert own == pytest.approx((exact, f1))


def test_cmrc_takes_a_run_and_no_subsequence() -> None:
    assert answers.cmrc_f1(["甲乙丙丁"], ["甲丙丁"]) == pytest.approx(200 * (2 / 4 * 2 / 3) / (2 / 4 + 2 / 3))


def test_character_f1_counts_spaces_and_repeats() -> None:
    assert answers.character_f1(["a a"], [["aa"]]) == pytest.approx(0.8)


def test_a_long_answer_of_frequent_characters_is_matched_exactly() -> None:
    assert answers.run_f1("가나" * 150, "가나" * 150) == 1.0


@pytest.mark.parametrize("name", ["exact_match", "character_f1", "squad_f1", "korquad_f1", "cmrc_f1"])
def test_no_accepted_answer_scores_0(name: str) -> None:
    assert getattr(answers, name)(["x"], [[]]) == 0.0
