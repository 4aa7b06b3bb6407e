"""Names, sizes and bombs that are refused in every archive, by the name of the member at fault."""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib
from contextlib import nullcontext

import pytest

from hubcache.errors import IntegrityError, UnsafeArchive
from hubcache.unpack import Limits
from tests.support.archives import END, compress, file, header, padded, pax, read, refused, zipped

UNSAFE_NAMES = [
    "/etc/passwd", "../evil", "a/../../evil", "a/..", "C:/evil", "C:evil", "a/C:/evil", "//host/share/evil",
    "\\\\host\\evil", "a\\b", "line\nbreak", "\x1b[31mred", "del\x7f", "nul", "a/CON.txt", "com1/a", "dot.", "space ",
    "a//b", "a/./b", ".", "..", ".//a", "x" * 256,
]  # fmt: skip
COLLISIONS = [
    ("a", "a"), ("Config.json", "config.json"), ("d/x", "D/y"), ("d/x", "D"), ("\u00e9", "e\u0301"),
    ("straße", "STRASSE"), ("\u1e9b\u0323", "\u017f\u0307\u0323"), ("a", "a/b"), ("a/b", "a"), ("a", "a/"),
    ("a/", "a"), ("D/", "d/"), ("a", "./a"),
]  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_an_unsafe_name_is_refused(name: str) -> None:
    refused(pax((b"path", name.encode())) + file(b"harmless") + END, ".tar", name)
    refused(zipped(name), ".zip", name)


@pytest.mark.parametrize("name", [name for name in UNSAFE_NAMES if len(name) < 100])
def test_an_unsafe_name_is_refused_in_every_place_a_tar_has_for_it(name: str) -> None:
    raw = name.encode()
    refused(file(raw) + END, ".tar", name)
    refused(header(b"L", len(raw) + 1, b"L") + padded(raw + b"\0") + file(b"harmless") + END, ".tar", name)
    if name != ".":
        refused(header(raw, kind=b"5") + file(b"harmless") + END, ".tar", name)


def test_a_nul_in_a_name_is_refused() -> None:
    refused(pax((b"path", b"a\0b")) + file(b"a") + END, ".tar", "a\0b")
    refused(zipped("a%b").replace(b"a%b", b"a\0b"), ".zip", "a\0b")


def test_a_name_that_is_no_utf8_is_refused() -> None:
    refused(file(b"caf\xe9") + END, ".tar", "caf\udce9")
    refused(pax((b"hdrcharset", b"BINARY"), (b"path", b"caf\xe9")) + file(b"a") + END, ".tar", "caf\udce9")
    with pytest.raises(UnsafeArchive, match=r"b'caf\\xe9'"):
        read(zipped("caf%").replace(b"caf%", b"caf\xe9"), ".zip")


def test_an_overlong_name_is_refused() -> None:
    name = "/".join(["folder"] * 600)
    refused(pax((b"path", name.encode())) + file(b"a") + END, ".tar", name[:200])
    refused(zipped(name), ".zip", name[:200])


@pytest.mark.parametrize(("first", "second"), COLLISIONS)
def test_names_that_collide_are_refused(first: str, second: str) -> None:
    blocks = [header(name.encode(), kind=b"5" if name.endswith("/") else b"0") for name in (first, second)]
    refused(b"".join(blocks) + END, ".tar", second)
    with pytest.warns(UserWarning, match="Duplicate") if first == second else nullcontext():
        archive = zipped(first, second)
    refused(archive, ".zip", second)


def test_a_folder_with_content_is_refused() -> None:
    refused(header(b"d/", 512, b"5") + bytes(512) + file(b"a") + END, ".tar", "d/")
    refused(zipped("d%").replace(b"d%", b"d/"), ".zip", "d/")


def test_too_many_members_are_refused() -> None:
    archive = file(b"d/a") + file(b"d/b") + file(b"d/c") + END
    assert len(read(archive, limits=Limits(members=4))) == 3
    with pytest.raises(UnsafeArchive, match="'d/c'"):
        read(archive, limits=Limits(members=3))


def test_implied_folders_count_as_members() -> None:
    with pytest.raises(UnsafeArchive, match="more than 50"):
        read(file(b"a/" * 49 + b"a") + file(b"b") + END, limits=Limits(members=50))


def test_a_member_over_the_total_is_refused_unread() -> None:
    refused(header(b"huge", size_field=b"\x80" + b"\xff" * 11) + END, ".tar", "huge")
    with pytest.raises(UnsafeArchive, match="'b'"):
        read(file(b"a", b"12") + file(b"b", b"34") + END, limits=Limits(total_bytes=3))


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_member_shorter_than_its_header_says_is_refused(suffix: str) -> None:
    archive = header(b"short", 5000) + bytes(700)
    refused(gzip.compress(archive) if suffix != ".tar" else archive, suffix, "short", IntegrityError)


@pytest.mark.parametrize("where", ["a member", "behind the end"])
@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"])
def test_a_bomb_is_refused_by_default(suffix: str, where: str) -> None:
    start = header(b"bomb", 70 << 20) if where == "a member" else file(b"bomb") + END
    refused(compress(start, suffix) + compress(bytes(7 << 20), suffix) * 10, suffix, "bomb")


def test_a_zip_bomb_is_refused_by_default() -> None:
    refused(zipped("bomb", content=bytes(70 << 20)), ".zip", "bomb")


@pytest.mark.parametrize("garbage", [b"x", b"\x1f", b"\x1f\x8b", bytes(9) + b"garbage"])
def test_garbage_behind_a_compressed_stream_is_refused(garbage: bytes) -> None:
    refused(gzip.compress(file(b"a") + END) + garbage, ".tar.gz", "a", IntegrityError)


def test_a_stream_that_asks_for_gigabytes_of_window_is_refused() -> None:
    xz = bytearray(lzma.compress(file(b"a") + END))
    size = (xz[12] + 1) * 4
    xz[16] = 40  # a dictionary of 4 GiB
    struct.pack_into("<L", xz, 12 + size - 4, zlib.crc32(xz[12 : 12 + size - 4]))
    zst = b"\x28\xb5\x2f\xfd\0" + bytes([(31 - 10) << 3]) + (1 | 512 << 3).to_bytes(3, "little") + header(b"a")
    for suffix, archive in ((".tar.xz", bytes(xz)), (".tar.zst", zst)):
        with pytest.raises(IntegrityError, match="corrupt"):
            read(archive, suffix)
