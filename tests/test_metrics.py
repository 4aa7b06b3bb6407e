"""The registry names metrics that are right on right predictions, and says what is better; each metric's own file tests
its figures.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from hubcache.train.metrics import METRICS, Metric, is_better, metric, scores
from tests.support.goldens import golden

PERFECT: dict[str, tuple[list[Any], list[Any]]] = {
    "labels": ([0, 1, 2, 1], [0, 1, 2, 1]),
    "values": ([0.5, 3.0, 4.5], [0.5, 3.0, 4.5]),
    "probabilities": ([[0.9, 0.1], [0.2, 0.8]], [0, 1]),
    "label_rows": ([[1, 0], [1, 1]], [[1, 0], [1, 1]]),
    "token_rows": ([[1, 2, 3], [2]], [[1, 2, 3], [2]]),
    "tag_rows": ([["B-PS", "I-PS"], ["B-LC"]], [["B-PS", "I-PS"], ["B-LC"]]),
    "texts": (["one two three four", "five six seven eight"], ["one two three four", "five six seven eight"]),
    "answers": (["하나", "two"], [["하나", "한"], ["two"]]),
}
# Their 100 is out of reach, which is what the reference's figure is like (ke_t5.py and sofa.py say why).
NEVER_PERFECT = {"ke_t5_char_f1", "sofa_bleu4", "sofa_rouge_l_release"}


def perfect_score(chosen: Metric) -> float:
    """Compute a metric where predictions and references agree."""
    predictions, references = PERFECT[chosen.inputs]
    if chosen.name == "entity_f1_iobes":
        predictions = references = [["S-LOC", "B-PER", "E-PER"]]
    return chosen.compute(predictions, references)


@pytest.mark.parametrize("name", sorted(METRICS.keys() - NEVER_PERFECT))
def test_a_perfect_prediction_has_the_perfect_score(name: str) -> None:
    assert perfect_score(metric(name)) == pytest.approx(metric(name).perfect, rel=1e-12)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_no_rows_have_no_score(name: str) -> None:
    with pytest.raises(ValueError, match="no rows"):
        metric(name).compute([], [])


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_prediction_too_few_is_refused(name: str) -> None:
    predictions, references = PERFECT[metric(name).inputs]
    with pytest.raises(ValueError, match=f"{len(predictions) - 1} predictions for {len(references)} references"):
        metric(name).compute(predictions[:-1], references)


@pytest.mark.parametrize("name", sorted(one.name for one in METRICS.values() if one.inputs in ("texts", "answers")))
def test_an_empty_prediction_scores_0(name: str) -> None:
    assert metric(name).compute(["", ""], ["one two", "셋 넷"]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", sorted(one.name for one in METRICS.values() if one.inputs in ("texts", "answers")))
def test_an_empty_reference_scores_a_text_0(name: str) -> None:
    assert metric(name).compute(["one two", "셋 넷"], ["", ""]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", sorted(one.name for one in METRICS.values() if one.inputs == "tag_rows"))
def test_tags_without_an_entity_score_a_number(name: str) -> None:
    assert math.isfinite(metric(name).compute([["O", "O"]], [["O", "O"]]))


@pytest.mark.parametrize(
    "name", sorted(one.name for one in METRICS.values() if one.inputs == "labels" and one.name != "klue_re_micro_f1")
)
def test_one_class_only_scores_a_number(name: str) -> None:
    assert math.isfinite(metric(name).compute([1, 1], [1, 1]))


def test_an_unknown_name_is_answered_with_all_names() -> None:
    with pytest.raises(ValueError, match=r"'acuracy'; there are accuracy, .*token_accuracy"):
        metric("acuracy")


def test_several_metrics_come_by_name() -> None:
    assert scores(["accuracy", "macro_f1"], [0, 1, 1], [0, 1, 0]) == pytest.approx(
        {"accuracy": 2 / 3, "macro_f1": 2 / 3}
    )


@pytest.mark.parametrize(("rule", "name"), [("GreaterIsTheBest", "accuracy"), ("LessIsTheBest", "mse")])
def test_the_best_is_chosen_as_ke_t5_does(rule: str, name: str) -> None:
    steps = json.loads((golden("ket5/metrics") / "ket5_downstreams.json").read_text("utf8"))["best_fn"][rule]
    best: float | None = None
    for score, wins, _ in steps:
        value = math.nan if score is None else score
        assert is_better(metric(name), value, best) is wins
        best = value if wins else best


def test_a_nan_is_not_the_first_best_either() -> None:
    assert not is_better(metric("pearson"), math.nan, None)


def test_importing_the_metrics_imports_neither_torch_nor_scipy() -> None:
    code = (
        "import sys, hubcache.train.metrics as m; print({'torch', 'transformers', 'scipy', 'sklearn'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
