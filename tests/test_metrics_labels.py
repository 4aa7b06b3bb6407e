"""Figures of labels and values are those of scikit-learn and scipy; KLUE's and KE-T5's goldens are elsewhere."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubcache.train.metrics import klue, labels, values
from hubcache.train.metrics.counts import macro, micro, weighted

sklearn_metrics = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")

label_pairs = st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 4)), min_size=1, max_size=40)
number = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e3, 1e3).map(lambda value: round(value, 3)))
value_pairs = st.lists(st.tuples(number, number), min_size=2, max_size=30)
bit_rows = st.lists(st.tuples(*[st.integers(0, 1)] * 6), min_size=1, max_size=20)


def close(expected: Any) -> Any:
    """Allow what the goldens' README allows; NaN is NaN."""
    return pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


def sides(pairs: list[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """Split pairs into predictions and references."""
    return [made for made, _ in pairs], [real for _, real in pairs]


@settings(deadline=None, max_examples=40)
@given(label_pairs)
def test_accuracy_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    made, real = sides(pairs)
    assert labels.accuracy(made, real) == close(sklearn_metrics.accuracy_score(real, made))


@settings(deadline=None, max_examples=40)
@given(label_pairs)
@pytest.mark.parametrize(("average", "own"), [("macro", macro), ("micro", micro), ("weighted", weighted)])
def test_averaged_precision_recall_and_f1_are_scikit_learns(average: str, own: Any, pairs: list[Any]) -> None:
    made, real = sides(pairs)
    score = own(labels.class_tallies(made, real).values())
    theirs = sklearn_metrics.precision_recall_fscore_support(real, made, average=average, zero_division=0)
    assert (score.precision, score.recall, score.f1) == close(theirs[:3])


@settings(deadline=None, max_examples=40)
@given(label_pairs)
def test_each_class_has_scikit_learns_figures(pairs: list[tuple[int, int]]) -> None:
    made, real = sides(pairs)
    own = [tally.score for tally in labels.class_tallies(made, real).values()]
    theirs = sklearn_metrics.precision_recall_fscore_support(real, made, average=None, zero_division=0)
    assert [score.precision for score in own] == close(list(theirs[0]))
    assert [score.recall for score in own] == close(list(theirs[1]))
    assert [score.f1 for score in own] == close(list(theirs[2]))
    assert [score.support for score in own] == list(theirs[3])


@settings(deadline=None, max_examples=40)
@given(label_pairs)
def test_matthews_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    made, real = sides(pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert labels.matthews(made, real) == close(sklearn_metrics.matthews_corrcoef(real, made))


def test_matthews_counts_a_large_corpus_without_overflow() -> None:
    real: Any = np.arange(3_000_000) % 2
    assert labels.matthews(real, real) == pytest.approx(1.0, rel=1e-12)


def test_labels_may_be_words() -> None:
    assert labels.class_tallies(["a", "b", "b"], ["a", "b", "c"])["b"].score.precision == 0.5


@settings(deadline=None, max_examples=40)
@given(bit_rows)
@pytest.mark.parametrize(
    ("average", "own"), [("micro", labels.multilabel_micro_f1), ("macro", labels.multilabel_macro_f1)]
)
def test_multi_label_f1_is_scikit_learns(average: str, own: Any, rows: list[tuple[int, ...]]) -> None:
    made, real = np.array(rows)[:, :3], np.array(rows)[:, 3:]
    theirs = sklearn_metrics.f1_score(real, made, average=average, zero_division=0)
    assert own(made, real) == close(theirs)


@settings(deadline=None, max_examples=40)
@given(bit_rows)
def test_multi_label_exact_match_is_scikit_learns_accuracy(rows: list[tuple[int, ...]]) -> None:
    made, real = np.array(rows)[:, :3], np.array(rows)[:, 3:]
    assert labels.multilabel_exact_match(made, real) == pytest.approx(sklearn_metrics.accuracy_score(real, made))


def test_multi_label_rows_of_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\) for references of shape \(1, 3\)"):
        labels.multilabel_exact_match([[0, 1]], [[0, 1, 1]])


@settings(deadline=None, max_examples=40)
@given(value_pairs)
@pytest.mark.parametrize(("own", "theirs"), [(values.pearson, stats.pearsonr), (values.spearman, stats.spearmanr)])
def test_a_correlation_is_scipys(own: Any, theirs: Any, pairs: list[tuple[float, float]]) -> None:
    made, real = sides(pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs(made, real)[0]
    assert own(made, real) == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("own", [values.pearson, values.spearman])
@pytest.mark.parametrize(("made", "real"), [([2, 2, 2], [1, 2, 3]), ([1, 2, 3], [2, 2, 2]), ([1], [1])])
def test_a_correlation_with_a_constant_is_nan(own: Any, made: list[int], real: list[int]) -> None:
    assert math.isnan(own(made, real))


def test_a_head_of_one_number_is_read_as_a_column() -> None:
    assert values.mse([[1.0], [2.0]], [1.0, 4.0]) == 2.0


def test_two_numbers_a_row_are_refused() -> None:
    with pytest.raises(ValueError, match="one number a row"):
        values.mse([[1.0, 2.0]], [1.0])


def test_token_accuracy_leaves_ignored_labels_out() -> None:
    assert labels.token_accuracy([[7, 1, 2], [7, 0, 0]], [[-100, 1, 3], [-100, 0, -100]]) == pytest.approx(2 / 3)


def test_token_accuracy_takes_lists_that_stop_with_the_sentence() -> None:
    padded = labels.token_accuracy([[1, 2, 0, 0], [3, 0, 0, 0]], [[1, 2, 5, -100], [3, -100, -100, -100]])
    assert labels.token_accuracy([[1, 2, 0], [3]], [[1, 2, 5, -100], [3, -100, -100, -100]]) == padded == 0.75


def test_tokens_that_a_prediction_lacks_are_wrong() -> None:
    assert labels.token_accuracy([[1]], [[1, 1]]) == 0.5


def test_token_accuracy_of_ignored_labels_only_is_0() -> None:
    assert labels.token_accuracy([[1, 1]], [[-100, -100]]) == 0.0


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_auprc_is_scikit_learns_also_with_ties(seed: int, tied: bool) -> None:
    random = np.random.RandomState(seed)
    true = np.concatenate([np.arange(4), random.randint(0, 4, 20)])
    probabilities = random.dirichlet(np.ones(4), 24).round(1 if tied else 9)
    areas = []
    for label in range(4):
        curve = sklearn_metrics.precision_recall_curve(true == label, probabilities[:, label])
        areas.append(sklearn_metrics.auc(curve[1], curve[0]))
    assert klue.re_auprc(probabilities, true) == close(100 * np.mean(areas))
