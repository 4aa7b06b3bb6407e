"""Hostile and damaged tars are refused, by the name of the member at fault."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubcache.errors import HubcacheError, IntegrityError, UnsafeArchive
from hubcache.unpack import Limits
from tests.support.archives import END, file, header, padded, pax, read, refused


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"6", b"S", b"V", b"M", b"D", b"N", b"A", b"\xff"])
def test_a_tar_member_that_is_no_file_or_folder_is_refused(kind: bytes) -> None:
    refused(file(b"good") + header(b"bad", kind=kind) + END, ".tar", "bad")


@pytest.mark.parametrize("form", ["--format=gnu", "--format=pax", "--sparse-version=0.0", "--sparse-version=0.1"])
def test_a_sparse_file_is_refused(form: str, tmp_path: Path) -> None:
    with (tmp_path / "hollow").open("wb") as hollow:
        hollow.truncate(1 << 20)
    pax_too = [] if "format" in form else ["--format=pax"]
    made = subprocess.run(
        ["tar", form, *pax_too, "-S", "-c", "-C", tmp_path, "hollow"], check=True, capture_output=True
    )
    refused(made.stdout, ".tar", "hollow")


@pytest.mark.parametrize("field", [b"-0000000001\0", b"\xff" * 12, b"0o17\0", b"1_000\0", b"9\0", b"\x90" + bytes(11)])
def test_a_size_that_is_no_number_is_refused(field: bytes) -> None:
    with pytest.raises(IntegrityError, match="size"):
        read(header(b"a", size_field=field) + END)


@pytest.mark.parametrize("size", [b"", b"-1", b"1_0", b"1" * 21, b"1e3"])
def test_a_pax_size_that_is_no_number_is_refused(size: bytes) -> None:
    refused(pax((b"size", size)) + file(b"a") + END, ".tar", "a", IntegrityError)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K", b"X"])
def test_an_extended_header_of_gigabytes_is_refused_unread(kind: bytes) -> None:
    stream = io.BytesIO(header(b"long", 5 << 30, kind) + bytes(10 << 20))
    refused(stream, ".tar", "long")
    assert stream.tell() < 1 << 20


def test_headers_without_end_are_refused() -> None:
    class Endless:
        def read(self, size: int, /) -> bytes:
            return pax((b"comment", b"x"), kind=b"g") * (size // 1024)

    limits = Limits(total_bytes=1 << 20, ratio_from=1 << 20)
    with pytest.raises(UnsafeArchive, match="unpacks to more"):
        read(Endless(), limits=limits)


@pytest.mark.parametrize("record", [(b"path", b"x"), (b"size", b"1"), (b"GNU.sparse.map", b"0,1")])
def test_a_global_header_that_renames_every_member_is_refused(record: tuple[bytes, bytes]) -> None:
    with pytest.raises(UnsafeArchive, match="global"):
        read(pax(record, kind=b"g") + file(b"a") + END)


def test_headers_that_readers_disagree_on_are_refused() -> None:
    long_name = header(b"L", 2, b"L") + padded(b"b\0")
    for twice in (pax((b"path", b"a")) * 2, long_name * 2, pax((b"path", b"a")) + long_name):
        with pytest.raises(IntegrityError):
            read(twice + file(b"c") + END)


@pytest.mark.parametrize(
    "content",
    [b"99 path=a\n", b"8 path=a\n", b"path=a\n", b"09 path=a\n", b"10 path=a\nx", b"9 path:ab\n", b"3 \n", b"1 "],
)
def test_a_corrupt_pax_header_is_refused(content: bytes) -> None:
    with pytest.raises(IntegrityError, match="pax"):
        read(header(b"p", len(content), b"x") + padded(content) + file(b"c") + END)


def test_a_corrupt_header_does_not_pass_for_the_end() -> None:
    lost = bytearray(file(b"b", b"2"))
    lost[0] ^= 1
    refused(file(b"a", b"1") + bytes(lost) + END, ".tar", "a", IntegrityError)


def test_a_header_that_became_zeros_does_not_pass_for_the_end() -> None:
    refused(file(b"a", b"1") + bytes(512) + padded(b"2") + END, ".tar", "a", IntegrityError)


def test_an_end_without_marker_is_taken_only_from_a_compressed_stream() -> None:
    refused(file(b"a", b"1"), ".tar", "a", IntegrityError)
    assert read(gzip.compress(file(b"a", b"1")), ".tar.gz") == {"a": b"1"}


def test_an_archive_that_ends_after_an_extended_header_is_refused() -> None:
    refused(file(b"a") + pax((b"path", b"b")) + END, ".tar", "a", IntegrityError)


def test_checksums_behind_the_end_marker_are_verified() -> None:
    archive = bytearray(gzip.compress(file(b"a") + END * 500))
    archive[-8] ^= 1
    with pytest.raises(IntegrityError, match="gzip data is corrupt"):
        read(bytes(archive), ".tar.gz")


BLOCKS = st.one_of(
    st.builds(
        header,
        st.sampled_from([b"a", b"b/", b"./c", b"../d", b"\xff"]),
        st.integers(0, 2000),
        st.sampled_from([bytes([kind]) for kind in b"\x000123457xgLKXS"]),
        st.one_of(st.just(b""), st.binary(min_size=12, max_size=12)),
    ),
    st.binary(max_size=600),
    st.sampled_from([bytes(512), pax((b"path", b"p")), pax((b"size", b"3")), pax((b"GNU.sparse.map", b"1,x"))]),
)


@settings(max_examples=300, deadline=None)
@given(blocks=st.lists(BLOCKS, max_size=8))
def test_headers_with_right_checksums_and_any_content_raise_nothing_else(blocks: list[bytes]) -> None:
    for suffix, archive in ((".tar", b"".join(blocks) + END), (".tgz", gzip.compress(b"".join(blocks)))):
        with suppress(HubcacheError):
            read(archive, suffix)


def test_the_standard_library_would_have_lost_a_member() -> None:
    lost = bytearray(file(b"b", b"2"))
    lost[0] ^= 1
    with tarfile.open(fileobj=io.BytesIO(file(b"a", b"1") + bytes(lost) + END), mode="r|") as archive:
        assert archive.getnames() == ["a"]
