"""A mirror's health follows from the recorded facts and the clock, and is remembered between runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcache.mirrors.book import HealthBook
from hubcache.mirrors.health import (
    FIRST_REST,
    LONGEST_ASKED_REST,
    LONGEST_REST,
    SMALLEST_SAMPLE,
    UNKNOWN,
    Health,
    answered,
    failed,
    rank,
    served,
)

NOW = 1e9
SECONDS = st.floats(0, 1e5)
FACTS = st.builds(
    Health,
    latency=st.none() | SECONDS,
    throughput=st.none() | st.floats(1, 1e10),
    failures=st.integers(0, 5000),
    rests_until=st.floats(0, 2 * NOW),
    reason=st.text(max_size=5),
)
NAMES = list("abcd")


def order(facts: dict[str, Health], now: float = NOW) -> list[str]:
    return [choice.name for choice in rank(NAMES[: len(facts)], facts, now=now)]


# -- the order


def test_unknown_mirrors_stay_as_the_user_has_them() -> None:
    assert [choice.name for choice in rank(NAMES, {}, now=NOW)] == NAMES


def test_a_mirror_at_rest_comes_last_and_says_why() -> None:
    first, last = rank(["a", "b"], {"a": failed(UNKNOWN, "answered 503", now=NOW)}, now=NOW)
    assert (first.name, last.name, last.is_resting, "answered 503" in last.why) == ("b", "a", True, True)


def test_of_those_at_rest_the_next_to_wake_comes_first() -> None:
    assert order({"a": Health(rests_until=NOW + 60), "b": Health(rests_until=NOW + 6)}) == ["b", "a"]


def test_a_rest_that_is_over_is_forgotten() -> None:
    assert order({"a": Health(rests_until=NOW), "b": UNKNOWN}) == ["a", "b"]


@pytest.mark.parametrize(("speed", "expected"), [(1.9e6, ["a", "b"]), (2.1e6, ["b", "a"])])
def test_only_a_much_faster_mirror_goes_before_one_that_the_user_put_first(speed: float, expected: list[str]) -> None:
    assert order({"a": Health(throughput=1e6), "b": Health(throughput=speed)}) == expected


@given(facts=st.lists(FACTS, min_size=1, max_size=4), now=st.floats(0, 2 * NOW))
def test_every_mirror_has_one_place_and_none_at_rest_comes_before_one_that_is_not(
    facts: list[Health], now: float
) -> None:
    choices = rank(NAMES[: len(facts)], dict(zip(NAMES, facts, strict=False)), now=now)
    assert sorted(choice.name for choice in choices) == NAMES[: len(facts)]
    assert [choice.is_resting for choice in choices] == sorted(choice.is_resting for choice in choices)


# -- what changes it


@given(facts=FACTS)
def test_a_failure_lets_a_mirror_rest_for_a_bounded_time(facts: Health) -> None:
    after = failed(facts, "broke", now=NOW)
    assert FIRST_REST <= after.rests_until - NOW <= LONGEST_REST
    assert (after.failures, after.reason) == (facts.failures + 1, "broke")


def test_each_failure_in_a_row_doubles_the_rest() -> None:
    facts, rests = UNKNOWN, []
    for _ in range(9):
        facts = failed(facts, "broke", now=NOW)
        rests.append(facts.rests_until - NOW)
    assert rests == [5, 10, 20, 40, 80, 160, 320, 600, 600]


@pytest.mark.parametrize(("asked", "rest"), [(0.0, 0.0), (77.0, 77.0), (1e9, LONGEST_ASKED_REST)])
def test_a_mirror_rests_as_long_as_it_asks_up_to_an_hour(asked: float, rest: float) -> None:
    assert failed(UNKNOWN, "429", now=NOW, retry_after=asked).rests_until == NOW + rest


def test_a_rest_of_years_comes_of_a_clock_set_back_and_is_none() -> None:
    assert not rank(["a"], {"a": Health(failures=3, rests_until=NOW + 4e7)}, now=NOW)[0].is_resting


@given(facts=FACTS, latency=SECONDS)
def test_an_answer_ends_the_rest(facts: Health, latency: float) -> None:
    after = answered(facts, latency)
    assert (after.failures, after.rests_until, after.throughput) == (0, 0.0, facts.throughput)


@given(facts=FACTS, size=st.integers(1, 1 << 40), seconds=SECONDS)
def test_bytes_end_the_rest_and_few_of_them_measure_nothing(facts: Health, size: int, seconds: float) -> None:
    after = served(facts, size, seconds)
    assert (after.failures, after.rests_until) == (0, 0.0)
    assert size >= SMALLEST_SAMPLE or after.throughput == facts.throughput


@given(facts=FACTS)
def test_no_bytes_change_nothing(facts: Health) -> None:
    assert served(facts, 0, 1.0) == facts


@given(measured=st.lists(st.floats(0.001, 100), min_size=1, max_size=9))
def test_a_mean_lies_between_what_was_measured(measured: list[float]) -> None:
    facts = UNKNOWN
    for latency in measured:
        facts = answered(facts, latency)
    assert facts.latency is not None
    assert min(measured) * 0.999 <= facts.latency <= max(measured) * 1.001


# -- the book


@given(facts=st.dictionaries(st.text(max_size=9), FACTS, max_size=3))
def test_what_was_recorded_is_known_to_the_next_run(
    facts: dict[str, Health], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("state") / "new" / "health.json"
    book = HealthBook(path)
    for url, each in facts.items():
        book.record(url, lambda _, now, each=each: each)  # type: ignore[misc]  # bound now
    book.save()
    assert {url: HealthBook(path).of(url) for url in facts} == facts


def test_the_book_orders_by_its_clock(tmp_path: Path) -> None:
    clock = [NOW]
    book = HealthBook(clock=lambda: clock[0])
    book.record("a", lambda facts, now: failed(facts, "broke", now=now))
    assert [choice.name for choice in book.order(["a", "b"])] == ["b", "a"]
    clock[0] += FIRST_REST
    assert [choice.name for choice in book.order(["a", "b"])] == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"format_version": 2, "mirrors": {}}',
        '{"format_version": 1, "mirrors": []}',
        '{"format_version": 1, "mirrors": {"u": 7}}',
        *(
            json.dumps({"format_version": 1, "mirrors": {"u": facts}})
            for facts in (
                {"throughput": "fast"},
                {"latency": float("nan")},
                {"rests_until": float("inf")},
                {"rests_until": None},
                {"failures": -1},
                {"failures": "many"},
                {"reason": 7},
                {"unknown": 1},
            )
        ),
    ],
    ids=lambda text: text[:60],
)
def test_a_file_that_is_no_book_is_ignored_and_written_anew(content: str, tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    path.write_text(content)
    book = HealthBook(path)
    assert book.of("u") == UNKNOWN
    book.record("u", lambda facts, now: failed(facts, "broke", now=now))
    book.save()
    assert HealthBook(path).of("u").failures == 1


def make_folder(path: Path) -> None:
    path.mkdir(parents=True)


def block_folder(path: Path) -> None:
    path.parent.write_text("a file where the folder belongs")


@pytest.mark.parametrize("spoil", [make_folder, block_folder])
def test_a_book_that_cannot_be_read_or_written_harms_nothing(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "state" / "health.json"
    spoil(path)
    book = HealthBook(path)
    book.record("u", lambda facts, now: failed(facts, "broke", now=now))
    book.save()
    assert book.of("u").failures == 1
