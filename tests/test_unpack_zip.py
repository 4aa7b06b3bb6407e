"""Hostile and damaged zips are refused, by the name of the member at fault."""

from __future__ import annotations

import struct
import zipfile

import pytest

from hubcache.errors import IntegrityError, UnsafeArchive
from hubcache.unpack import Limits
from tests.support.archives import read, refused, zipped


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140666, 0o040755])
def test_a_zip_member_with_the_mode_of_no_file_is_refused(mode: int) -> None:
    refused(zipped("bad", change=lambda info: setattr(info, "external_attr", mode << 16)), ".zip", "bad")


def test_an_encrypted_zip_member_is_refused() -> None:
    archive = bytearray(zipped("secret"))
    archive[archive.index(b"PK\1\2") + 8] |= 1
    refused(bytes(archive), ".zip", "secret")


def test_a_zip_member_with_two_names_is_refused() -> None:
    refused(zipped("good").replace(b"good", b"evil", 1), ".zip", "good")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_method_that_could_not_be_bounded_is_refused(method: int) -> None:
    refused(zipped("a", change=lambda info: setattr(info, "compress_type", method)), ".zip", "a", IntegrityError)


@pytest.mark.parametrize("size", [0, 6, 8, 1 << 31])
def test_a_zip_member_that_lies_about_its_size_is_refused(size: int) -> None:
    archive = bytearray(zipped("liar"))
    struct.pack_into("<L", archive, archive.index(b"PK\1\2") + 24, size)
    refused(bytes(archive), ".zip", "liar", IntegrityError)


@pytest.mark.parametrize("packed", [0, 1, 1 << 31])
def test_a_zip_member_that_lies_about_its_packed_size_is_refused(packed: int) -> None:
    archive = bytearray(zipped("liar"))
    struct.pack_into("<L", archive, archive.index(b"PK\1\2") + 20, packed)
    refused(bytes(archive), ".zip", "liar", IntegrityError)


def test_a_zip_member_with_a_wrong_crc_is_refused() -> None:
    archive = bytearray(zipped("liar"))
    archive[archive.index(b"PK\1\2") + 16] ^= 1
    refused(bytes(archive), ".zip", "liar", IntegrityError)


def test_zip_members_that_share_their_bytes_are_refused() -> None:
    one, two = zipped("one"), zipped("two")
    entry_one, entry_two = (archive[archive.index(b"PK\1\2") : -22] for archive in (one, two))
    start = one.index(b"PK\1\2")
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(entry_one + entry_two), start, 0)
    refused(one[:start] + entry_one + entry_two + end, ".zip", "two")


@pytest.mark.parametrize("offset", [8, 10, 12, 16, 20])
def test_a_zip_whose_end_record_lies_is_refused(offset: int) -> None:
    archive = bytearray(zipped("a", "b"))
    archive[len(archive) - 22 + offset] -= 1 if offset < 20 else -1
    with pytest.raises(IntegrityError):
        read(bytes(archive), ".zip")


def test_a_zip_member_packed_in_two_ways_is_refused() -> None:
    archive = bytearray(zipped("a"))
    archive[8] = 0
    refused(bytes(archive), ".zip", "a")


def test_bytes_behind_a_deflate_stream_are_refused() -> None:
    archive = zipped("a")
    start = archive.index(b"PK\1\2")
    longer = bytearray(archive[:start] + b"x" + archive[start:])
    longer[start + 1 + 20] += 1  # packed size
    longer[-22 + 16] += 1  # where the directory begins
    refused(bytes(longer), ".zip", "a", IntegrityError)


@pytest.mark.parametrize("lengths", [(2, 0, 0), (0, 1, 0), (0, 0, 1), (0xFFFF, 0xFFFF, 0xFFFF)])
def test_a_directory_entry_that_runs_over_the_end_is_refused(lengths: tuple[int, int, int]) -> None:
    archive = bytearray(zipped("a"))
    struct.pack_into("<3H", archive, archive.index(b"PK\1\2") + 28, *lengths)
    with pytest.raises(IntegrityError):
        read(bytes(archive), ".zip")


def test_zip64_sizes_that_are_missing_are_refused() -> None:
    archive = bytearray(zipped("a"))
    struct.pack_into("<L", archive, archive.index(b"PK\1\2") + 24, 0xFFFFFFFF)
    refused(bytes(archive), ".zip", "a", IntegrityError)


@pytest.mark.parametrize("place", [0, 40, 1 << 63])
def test_a_zip64_record_that_is_not_there_is_refused(place: int) -> None:
    archive = zipped("a")
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, place, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    with pytest.raises(IntegrityError, match="zip64"):
        read(archive[:-22] + locator + end, ".zip")


def test_a_zip_with_too_many_entries_is_refused_unread() -> None:
    with pytest.raises(UnsafeArchive, match="3 entries"):
        read(zipped("a", "b", "c"), ".zip", Limits(members=2))
