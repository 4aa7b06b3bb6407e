"""What Range, If-Range and If-None-Match ask, and the lengths of multipart bodies."""

from __future__ import annotations

import timeit
from contextlib import suppress
from email import message_from_bytes
from random import Random
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcache.core.httpranges import (
    LIMIT,
    Unsatisfiable,
    is_unchanged,
    multipart_head,
    multipart_length,
    multipart_tail,
    parse_ranges,
    range_applies,
)
from hubcache.core.ranges import Range

ETAG = '"3adcfc60"'
HUGE = "9" * 20_000


@pytest.mark.parametrize(
    ("header", "ranges"),
    [
        ("bytes=0-0", ((0, 1),)),
        ("bytes=10-19", ((10, 20),)),
        ("bytes=10-", ((10, 100),)),
        ("bytes=0-", ((0, 100),)),
        ("bytes=99-99", ((99, 100),)),
        ("bytes=90-500", ((90, 100),)),
        ("bytes=-10", ((90, 100),)),
        ("bytes=-100", ((0, 100),)),
        ("bytes=-500", ((0, 100),)),
        ("Bytes=0-0", ((0, 1),)),
        ("bytes= 0-0 ,\t5-6", ((0, 1), (5, 7))),
        ("bytes=,0-0,,5-6,", ((0, 1), (5, 7))),
        ("bytes=5-6,0-4,-10", ((5, 7), (0, 5), (90, 100))),
        ("bytes=0-0,100-", ((0, 1),)),
        ("bytes=0-0,-0", ((0, 1),)),
        ("bytes=007-0009", ((7, 10),)),
        (f"bytes=0-{HUGE}", ((0, 100),)),
        (f"bytes=-{HUGE}", ((0, 100),)),
        (f"bytes={'0' * 20_000}-1", ((0, 2),)),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_a_range_is_read_and_clamped_to_the_file(header: str, ranges: tuple[Range, ...]) -> None:
    assert parse_ranges(header, 100) == ranges


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=5-4",
        "bytes=0-0,5-4",
        "bytes=0-0,x",
        "bytes=--5",
        "bytes=1-2-3",
        "bytes=0 - 1",
        "bytes=1 0-20",
        "bytes=+1-2",
        "bytes=٠-١",
        "bytes:0-1",
        "items=0-1",
        "=0-1",
        "0-1",
    ],
)
def test_a_header_that_is_no_byte_range_asks_for_the_whole(header: str | None) -> None:
    assert parse_ranges(header, 100) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=500-,-0", f"bytes={HUGE}-"])
def test_a_range_past_the_end_is_refused(header: str) -> None:
    with pytest.raises(Unsatisfiable) as caught:
        parse_ranges(header, 100)
    assert caught.value.size == 100


@pytest.mark.parametrize("header", ["bytes=0-5,5-9", "bytes=50-,-10", "bytes=0-0,0-0", "bytes=20-29,0-99,40-49"])
def test_ranges_that_overlap_are_refused(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        parse_ranges(header, 100)


def test_sixteen_ranges_are_taken() -> None:
    ranges = tuple((2 * n, 2 * n + 1) for n in range(LIMIT))
    assert parse_ranges(header_of(ranges), 100) == ranges


def test_seventeen_ranges_are_refused() -> None:
    with pytest.raises(Unsatisfiable):
        parse_ranges(header_of(tuple((2 * n, 2 * n + 1) for n in range(LIMIT + 1))), 100)


@pytest.mark.parametrize("header", ["bytes=0-0", "bytes=-5", "bytes=5-", "bytes=" + "0-1," * 99])
def test_an_empty_file_is_sent_whole(header: str) -> None:
    assert parse_ranges(header, 0) is None


def header_of(ranges: tuple[Range, ...]) -> str:
    return "bytes=" + ", ".join(f"{start}-{end - 1}" for start, end in ranges)


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=2 * LIMIT, unique=True), st.randoms())
def test_ranges_read_back_in_the_order_they_were_asked(bounds: list[int], chance: Random) -> None:
    bounds = sorted(bounds)
    ranges = list(zip(bounds[::2], bounds[1::2], strict=False))
    chance.shuffle(ranges)
    assert parse_ranges(header_of(tuple(ranges)), 10**12) == tuple(ranges)


@given(
    st.one_of(
        st.text(),
        st.text(alphabet="0123456789-, \t=", max_size=40).map("bytes=".__add__),
        st.lists(st.sampled_from(["0-", "-1", "5-9", "3-3", "99-100", "x", "", " ", "7-2"])).map(
            lambda specs: "bytes=" + ",".join(specs)
        ),
    ),
    st.integers(0, 120),
)
def test_no_header_asks_for_bytes_outside_the_file_or_twice(header: str, size: int) -> None:
    with suppress(Unsatisfiable):
        ranges = parse_ranges(header, size)
        if ranges is not None:
            wanted = [position for start, end in ranges for position in range(start, end)]
            assert 0 < len(ranges) <= LIMIT
            assert all(start < end for start, end in ranges)
            assert set(wanted) <= set(range(size))
            assert len(wanted) == len(set(wanted))


@pytest.mark.parametrize(
    "header",
    [
        "bytes=" + "," * 20_000,
        "bytes=" + "0-1," * 5_000,
        "bytes=" + " " * 20_000,
        "bytes=1-" + " " * 20_000 + "x",
        f"bytes={HUGE}-",
        f"bytes=-{HUGE}",
    ],
    ids=lambda header: header[:12],
)
def test_a_header_of_20_kb_is_read_in_under_a_millisecond(header: str) -> None:
    def read() -> None:
        with suppress(Unsatisfiable):
            parse_ranges(header, 10**9)

    assert min(timeit.repeat(read, timer=process_time, number=10, repeat=9)) / 10 < 1e-3


def body_of(content: bytes, ranges: tuple[Range, ...]) -> bytes:
    size = len(content)
    heads = [multipart_head("b0undary", "text/plain", start, end, size) for start, end in ranges]
    parts = [head + content[start:end] for head, (start, end) in zip(heads, ranges, strict=True)]
    return b"".join(parts) + multipart_tail("b0undary")


RANGES: tuple[Range, ...] = ((5, 7), (0, 5), (20, 26))


def test_a_multipart_body_is_as_long_as_was_said() -> None:
    content = b"abcdefghijklmnopqrstuvwxyz"
    assert multipart_length("b0undary", "text/plain", RANGES, 26) == len(body_of(content, RANGES))


def test_a_multipart_body_is_read_by_a_mail_parser() -> None:
    content = b"abcdefghijklmnopqrstuvwxyz"
    start = b"Content-Type: multipart/byteranges; boundary=b0undary\r\n\r\n"
    parts = message_from_bytes(start + body_of(content, RANGES)).get_payload()
    assert [(part["Content-Range"], part.get_content_type(), part.get_payload()) for part in parts] == [
        ("bytes 5-6/26", "text/plain", "fg"),
        ("bytes 0-4/26", "text/plain", "abcde"),
        ("bytes 20-25/26", "text/plain", "uvwxyz"),
    ]


@pytest.mark.parametrize("header", [ETAG, f"W/{ETAG}", "*", " * ", f'"a", {ETAG}', f'"a,b",W/"c" ,W/{ETAG}'])
def test_a_tag_that_the_client_holds_is_unchanged(header: str) -> None:
    assert is_unchanged(header, ETAG)


@pytest.mark.parametrize("header", [None, "", '"a"', "3adcfc60", '"3ADCFC60"', '"3adcfc60', '"*"', '"a, 3adcfc60, b"'])
def test_any_other_tag_is_changed(header: str | None) -> None:
    assert not is_unchanged(header, ETAG)


def test_a_weak_tag_of_ours_matches_a_strong_one() -> None:
    assert is_unchanged(ETAG, f"W/{ETAG}")


@pytest.mark.parametrize("header", [None, ETAG, f" {ETAG} "])
def test_a_range_applies_to_what_the_client_began(header: str | None) -> None:
    assert range_applies(header, ETAG)


@pytest.mark.parametrize("header", ["", '"a"', f"W/{ETAG}", "*", f'{ETAG}, "a"', "Sun, 06 Nov 1994 08:49:37 GMT"])
def test_a_range_does_not_apply_to_anything_else(header: str) -> None:
    assert not range_applies(header, ETAG)


def test_a_range_never_applies_to_a_weak_tag() -> None:
    assert not range_applies(f"W/{ETAG}", f"W/{ETAG}")


@given(st.text())
def test_no_text_is_a_tag_that_it_does_not_name(header: str) -> None:
    assert not is_unchanged(header.replace("*", "").replace("3", ""), ETAG)
