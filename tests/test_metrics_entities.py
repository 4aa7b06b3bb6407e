"""Entities are found and counted as seqeval 1.2.2 does: the expected figures are its; character tags are elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcache.train.metrics.entities import entity_f1, entity_scores, entity_spans, entity_tallies

TRUE = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG", "I-ORG", "I-ORG"], ["I-PER", "O", "B-LOC", "I-LOC"]]
MADE = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "I-ORG", "I-ORG", "I-ORG"], ["I-PER", "O", "B-LOC", "B-LOC"]]
TRUE_IOBES = [["S-PER", "O", "B-LOC", "I-LOC", "E-LOC"], ["B-ORG", "E-ORG", "S-LOC"]]
MADE_IOBES = [["S-PER", "O", "B-LOC", "E-LOC", "O"], ["B-ORG", "E-ORG", "I-LOC"]]


@pytest.mark.parametrize(
    ("scheme", "average", "expected"),
    [
        (None, "micro", (0.5, 0.6, 0.5454545454545454, 5)),
        (None, "macro", (0.5, 0.6666666666666666, 0.5555555555555555, 5)),
        (None, "weighted", (0.5, 0.6, 0.5333333333333333, 5)),
        ("IOB2", "micro", (0.25, 0.25, 0.25, 4)),
        ("IOB2", "macro", (1 / 3, 1 / 3, 1 / 3, 4)),
        ("IOB2", "weighted", (0.25, 0.25, 0.25, 4)),
    ],
)
def test_averages_are_seqevals(scheme: Any, average: str, expected: tuple[float, ...]) -> None:
    score = getattr(entity_scores(MADE, TRUE, scheme), average)
    assert (score.precision, score.recall, score.f1, score.support) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("scheme", "average", "expected"),
    [
        (None, "micro", (0.75, 0.75, 0.75)),
        (None, "macro", (0.8333333333333334, 0.8333333333333334, 0.8333333333333334)),
        ("IOBES", "micro", (0.6666666666666666, 0.5, 0.5714285714285715)),
        ("IOBES", "macro", (0.6666666666666666, 0.6666666666666666, 0.6666666666666666)),
    ],
)
def test_averages_of_iobes_tags_are_seqevals(scheme: Any, average: str, expected: tuple[float, ...]) -> None:
    score = getattr(entity_scores(MADE_IOBES, TRUE_IOBES, scheme), average)
    assert (score.precision, score.recall, score.f1) == pytest.approx(expected, rel=1e-12)


def test_each_type_has_seqevals_figures() -> None:
    scores = entity_scores(MADE, TRUE).types
    assert {kind: score.f1 for kind, score in scores.items()} == pytest.approx({"LOC": 0, "ORG": 2 / 3, "PER": 1})


def test_token_accuracy_is_seqevals() -> None:
    assert entity_scores(MADE, TRUE).accuracy == 0.75


@pytest.mark.parametrize(
    ("tags", "lenient", "strict"),
    [
        ("B-X I-X O", [("X", 0, 2)], [("X", 0, 2)]),
        ("O I-X I-X", [("X", 1, 3)], []),
        ("B-X I-Y", [("X", 0, 1), ("Y", 1, 2)], [("X", 0, 1)]),
        ("B-X B-X", [("X", 0, 1), ("X", 1, 2)], [("X", 0, 1), ("X", 1, 2)]),
        ("B-A-B I-A-B", [("A-B", 0, 2)], [("A-B", 0, 2)]),
        ("B I O", [("_", 0, 2)], [("_", 0, 2)]),
    ],
)
def test_a_chunk_ends_where_type_or_prefix_says(tags: str, lenient: list[Any], strict: list[Any]) -> None:
    assert (entity_spans(tags.split()), entity_spans(tags.split(), "IOB2")) == (lenient, strict)


@pytest.mark.parametrize(
    ("scheme", "tags", "spans"),
    [
        ("IOBES", "B-X I-X O S-X E-X", [("X", 3, 4)]),
        ("IOBES", "B-X B-X E-X", [("X", 1, 3)]),
        ("BILOU", "U-X B-Y I-Y L-Y", [("X", 0, 1), ("Y", 1, 4)]),
        ("IOE2", "I-X E-X E-X I-X O", [("X", 0, 2), ("X", 2, 3)]),
    ],
)
def test_a_scheme_takes_only_well_formed_chunks(scheme: Any, tags: str, spans: list[Any]) -> None:
    assert entity_spans(tags.split(), scheme) == spans


def test_a_prefix_outside_the_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="IOB2 has no tag 'S-PER'"):
        entity_spans(["O", "S-PER"], "IOB2")


def test_rows_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 predicted tags for 2"):
        entity_f1([["O"], ["O"]], [["O"], ["O", "O"]])


def test_without_any_entity_every_figure_is_0() -> None:
    scores = entity_scores([["O"]], [["O"]])
    assert (scores.micro.f1, scores.macro.f1, scores.weighted.f1, scores.types) == (0.0, 0.0, 0.0, {})


spans_of_a_sentence = st.lists(st.tuples(st.sampled_from(["X", "Y"]), st.integers(1, 4), st.booleans()), max_size=6)


@given(spans_of_a_sentence, st.sampled_from(["IOB2", "IOBES"]))
def test_spans_written_as_tags_are_read_back(spans: list[Any], scheme: Any) -> None:
    tags, expected = [], []
    for kind, length, outside in spans:
        tags += ["O"] * outside
        expected.append((kind, len(tags), len(tags) + length))
        tags += written(kind, length, scheme)
    assert entity_spans(tags, scheme) == entity_spans(tags) == expected


def written(kind: str, length: int, scheme: str) -> list[str]:
    """Write one entity in a scheme."""
    if scheme == "IOB2":
        return [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
    return [f"S-{kind}"] if length == 1 else [f"B-{kind}", *[f"I-{kind}"] * (length - 2), f"E-{kind}"]


def test_the_same_span_in_another_sentence_is_no_hit() -> None:
    assert entity_tallies([["B-X"], ["O"]], [["O"], ["B-X"]])["X"].hits == 0
