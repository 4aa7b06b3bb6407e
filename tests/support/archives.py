"""Archives for tests: good ones by the standard library, hostile ones by hand; used by test_unpack*.py only."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zipfile
from collections.abc import Callable

import pytest

from hubcache.errors import IntegrityError, UnsafeArchive
from hubcache.unpack import Limits, Stream, unpack

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DEFAULT = Limits()
END = bytes(1024)  # a tar's end marker


class Dribble:
    """A stream that gives at most `most` bytes at a time, and cannot seek."""

    def __init__(self, content: bytes, most: int) -> None:
        self._file = io.BytesIO(content)
        self._most = most

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._most))


def compress(content: bytes, suffix: str) -> bytes:
    """Compress as the suffix says; with a checksum, as the zstd command does."""
    if suffix in {".tgz", ".tar.gz"}:
        return gzip.compress(content, mtime=0)
    if suffix in {".tbz2", ".tar.bz2"}:
        return bz2.compress(content)
    if suffix in {".txz", ".tar.xz"}:
        return lzma.compress(content)
    if suffix in {".tzst", ".tar.zst"}:
        return zstd.compress(content, options={zstd.CompressionParameter.checksum_flag: 1})
    return content


def tar(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Write a tar with the standard library."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def pack(files: dict[str, bytes], suffix: str) -> bytes:
    """Write an archive of the suffix's kind with the standard library."""
    if suffix != ".zip":
        return compress(tar(files), suffix)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return file.getvalue()


def header(
    name: bytes, size: int = 0, kind: bytes = b"0", size_field: bytes = b"", magic: bytes = b"ustar\x0000"
) -> bytes:
    """Write one tar header block by hand, with a right checksum."""
    block = bytearray(
        name.ljust(100, b"\0")
        + b"0000644\0" * 3
        + (size_field.ljust(12, b"\0") if size_field else b"%011o\0" % size)
        + b"0" * 11
        + b"\0"
    )
    block += b" " * 8 + kind + bytes(100) + magic
    block = block.ljust(512, b"\0")
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    """Pad to whole tar blocks."""
    return content + bytes(-len(content) % 512)


def file(name: bytes, content: bytes = b"") -> bytes:
    """Write one file of a tar by hand."""
    return header(name, len(content)) + padded(content)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """Write a pax header by hand."""
    content = b""
    for key, value in records:
        size = len(key) + len(value) + 3
        digits = next(n for n in range(1, 9) if len(str(size + n)) == n)
        content += b"%d %s=%s\n" % (size + digits, key, value)
    return header(b"PaxHeader/x", len(content), kind) + padded(content)


def zipped(
    *names: str, change: Callable[[zipfile.ZipInfo], None] = lambda _: None, content: bytes = b"content"
) -> bytes:
    """Write a zip of members with these very names; a name with a slash at its end stays empty."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, b"" if name.endswith("/") else content)
    return packed.getvalue()


def read(archive: bytes | Stream, suffix: str = ".tar", limits: Limits = DEFAULT) -> dict[str, bytes]:
    """Unpack everything."""
    stream = io.BytesIO(archive) if isinstance(archive, bytes) else archive
    return {member.path: b"".join(chunks) for member, chunks in unpack(stream, suffix, limits=limits)}


def refused(archive: bytes | Stream, suffix: str, name: str, kind: type[IntegrityError] = UnsafeArchive) -> None:
    """Claim that the archive is refused, in a message that names the member and prints harmlessly."""
    with pytest.raises(kind) as caught:
        read(archive, suffix)
    assert repr(name[:200]) in caught.value.message
    assert caught.value.message.isprintable()
