"""Tar archives, member by member as the bytes arrive; reads ustar, v7, GNU and pax, and writes nothing.

The standard library's tarfile is not used: it reads an extended header of any size into memory
and takes a corrupt header after the first member for the end of the archive.
Formats: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar, "Basic Tar Format".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hubcache.errors import IntegrityError, UnsafeArchive
from hubcache.unpack.codecs import CHUNK, Feed, Stream, decode, plain
from hubcache.unpack.names import Member, Names
from hubcache.unpack.tally import Tally, label

COMPRESSIONS = {
    ".tar": "", ".tgz": "gzip", ".tar.gz": "gzip", ".tbz2": "bzip2", ".tar.bz2": "bzip2",
    ".txz": "xz", ".tar.xz": "xz", ".tzst": "zstd", ".tar.zst": "zstd",
}  # fmt: skip

_BLOCK = 512
_FILE = (b"0", b"\0", b"7")  # old tars write NUL; 7 asks for contiguous storage
_FOLDER = b"5"
_PAX = (b"x", b"X")  # X is Solaris's
_GLOBAL_PAX = b"g"
_LONG_NAME = b"L"
_LONG_LINK = b"K"
_EXTENDED = (*_PAX, _GLOBAL_PAX, _LONG_NAME, _LONG_LINK)
_REFUSED = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a character device", b"4": "a block device",
    b"6": "a named pipe", b"S": "a sparse file",
}  # fmt: skip
_PAX_LENGTH = re.compile(rb"([1-9][0-9]{0,8}) ")
_PAX_SIZE = re.compile(rb"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class _Header:
    name: str
    size: int
    kind: bytes


@dataclass(frozen=True, slots=True)
class _Said:
    """What extended headers say of the member that follows; None: nothing."""

    pax: dict[bytes, bytes] | None = None
    long_name: str | None = None
    long_link: str | None = None


class _Blocks:
    """Unpacked bytes, counted, in the portions a tar reader wants."""

    def __init__(self, pieces: Iterator[bytes], tally: Tally) -> None:
        self._pieces = pieces
        self._tally = tally
        self._piece = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes, b"" at the end."""
        if self._at == len(self._piece):
            self._piece, self._at = next(self._pieces, b""), 0
            self._tally.count_unpacked(len(self._piece))
        part = self._piece[self._at : self._at + size]
        self._at += len(part)
        return part

    def read_full(self, size: int) -> bytes:
        """Return `size` bytes, fewer only at the end."""
        parts = []
        while size and (part := self.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def skip_padding(self, size: int) -> None:
        """Skip from the end of `size` bytes of content to the next block.

        Raises:
            IntegrityError: the archive ends within the padding.
        """
        padding = -size % _BLOCK
        if len(self.read_full(padding)) < padding:
            raise IntegrityError(f"{self._tally.where}: the archive is cut off here")


def tar_members(stream: Stream, suffix: str, tally: Tally) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Yield each file and its content, which is to be consumed before the next is asked for.

    Raises:
        UnsafeArchive, IntegrityError: see unpack().
    """
    feed = Feed(stream, tally)
    compression = COMPRESSIONS[suffix]
    blocks = _Blocks(decode(feed, compression, tally) if compression else plain(feed), tally)
    names = Names(tally.limits)
    for header in _member_headers(blocks, tally, marked=not compression):
        tally.begin(header.name, header.size)
        path = names.add(header.name, folder=_check_kind(header))
        content = _content(blocks, header)
        if path is not None:
            yield Member(path, header.size), content
        for _ in content:
            pass
        blocks.skip_padding(header.size)


def _content(blocks: _Blocks, header: _Header) -> Iterator[bytes]:
    left = header.size
    while left:
        chunk = blocks.read(min(left, CHUNK))
        if not chunk:
            raise IntegrityError(f"{label(header.name)}: ends {left} bytes short of its {header.size}")
        left -= len(chunk)
        yield chunk


def _check_kind(header: _Header) -> bool:
    """Tell whether it is a folder.

    Raises:
        UnsafeArchive: it is neither a regular file nor a folder.
    """
    # Before there was a type for it, a folder was a file with a slash at its end.
    if header.kind == _FOLDER or (header.kind == b"\0" and header.name.endswith("/")):
        if header.size:
            raise UnsafeArchive(f"{label(header.name)}: is a folder of {header.size} bytes")
        return True
    if header.kind not in _FILE:
        what = _REFUSED.get(header.kind, f"of the unknown type {header.kind!r}")
        raise UnsafeArchive(f"{label(header.name)}: is {what}; only files and folders are unpacked")
    return False


def _member_headers(blocks: _Blocks, tally: Tally, *, marked: bool) -> Iterator[_Header]:
    """Yield what is known of each member, extended headers applied, to the verified end of the archive."""
    said = _Said()
    while (header := _next_header(blocks, tally, marked=marked)) is not None:
        if header.kind in _EXTENDED:
            said = _listen(said, header, _read_extended(blocks, header, tally))
        else:
            yield _apply(said, header)
            said = _Said()
    if said != _Said():
        raise IntegrityError(f"{tally.where}: the archive ends after an extended header")


def _next_header(blocks: _Blocks, tally: Tally, *, marked: bool) -> _Header | None:
    block = blocks.read_full(_BLOCK)
    if not block:
        # A compressed stream has said that this is its end. Of a bare tar only the zero blocks do.
        if marked:
            raise IntegrityError(f"{tally.where}: the archive ends here, without an end marker")
        return None
    if len(block) < _BLOCK:
        raise IntegrityError(f"{tally.where}: the archive is cut off in the header that follows")
    if any(block):
        return _parse_header(block, tally)
    # One zero block may be a header that was lost; the marker is two, or one at the very end.
    if any(blocks.read_full(_BLOCK)):
        raise IntegrityError(f"{tally.where}: a lone zero block follows and hides the rest of the archive")
    while blocks.read(CHUNK):  # whatever follows, so that the compression's checksums are seen
        pass
    return None


def _parse_header(block: bytes, tally: Tally) -> _Header:
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    high = sum(byte > 127 for byte in block[:148] + block[156:])
    # Some old tars summed signed bytes.
    if _number(block[148:156]) not in {total, total - 256 * high}:
        raise IntegrityError(f"{tally.where}: no tar header follows (wrong checksum)")
    size = _number(block[124:136])
    if size is None:
        raise IntegrityError(f"{tally.where}: the tar header that follows has no readable size")
    name = _text(block[:100])
    prefix = _text(block[345:500])
    # Only POSIX keeps a prefix there; GNU keeps times.
    if prefix and block[257:263] == b"ustar\0":
        name = f"{prefix}/{name}"
    return _Header(name, size, block[156:157])


def _number(field: bytes) -> int | None:
    if field[0] == 0x80:  # GNU: base 256
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if not re.fullmatch(rb"[0-7]*", digits):
        return None
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    # What is no UTF-8 becomes surrogates, which parse_path refuses. A name cut off here may have a longer one.
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _read_extended(blocks: _Blocks, header: _Header, tally: Tally) -> bytes:
    if header.size > tally.limits.header_bytes:
        raise UnsafeArchive(f"{label(header.name)}: an extended header that says it is {header.size} bytes long")
    content = blocks.read_full(header.size)
    if len(content) < header.size:
        raise IntegrityError(f"{label(header.name)}: an extended header that is cut off")
    blocks.skip_padding(header.size)
    return content


def _listen(said: _Said, header: _Header, content: bytes) -> _Said:
    # Of two headers that say the same thing, readers differ in which they believe.
    twice = IntegrityError(f"{label(header.name)}: a second extended header for one member")
    if header.kind in _PAX:
        if said.pax is not None:
            raise twice
        return replace(said, pax=_parse_pax(header, content))
    if header.kind == _LONG_NAME:
        if said.long_name is not None:
            raise twice
        return replace(said, long_name=_text(content))
    if header.kind == _LONG_LINK:
        return replace(said, long_link=_text(content))
    records = _parse_pax(header, content)
    if b"path" in records or b"size" in records or _is_sparse(records):
        raise UnsafeArchive(f"{label(header.name)}: a global header that changes every member's path or size")
    return said


def _parse_pax(header: _Header, content: bytes) -> dict[bytes, bytes]:
    records = {}
    at = 0
    while at < len(content):
        length = _PAX_LENGTH.match(content, at)
        end = at + int(length[1]) if length else 0
        if length is None or end > len(content) or end <= length.end() or content[end - 1 : end] != b"\n":
            raise IntegrityError(f"{label(header.name)}: a corrupt pax header")
        keyword, equals, value = content[length.end() : end - 1].partition(b"=")
        if not equals:
            raise IntegrityError(f"{label(header.name)}: a corrupt pax header")
        records[keyword] = value
        at = end
    return records


def _is_sparse(records: dict[bytes, bytes]) -> bool:
    return any(keyword.startswith((b"GNU.sparse.", b"SCHILY.realsize")) for keyword in records)


def _apply(said: _Said, header: _Header) -> _Header:
    pax = said.pax or {}
    if said.long_name is not None:
        if b"path" in pax:
            raise UnsafeArchive(f"{label(said.long_name)}: has two long names")
        header = replace(header, name=said.long_name)
    if b"path" in pax:
        header = replace(header, name=pax[b"path"].decode("utf-8", "surrogateescape"))
    if _is_sparse(pax):
        name = pax.get(b"GNU.sparse.name", header.name.encode("utf-8", "surrogateescape"))
        raise UnsafeArchive(f"{label(_text(name))}: is a sparse file; only files and folders are unpacked")
    if b"size" in pax:
        if not _PAX_SIZE.fullmatch(pax[b"size"]):
            raise IntegrityError(f"{label(header.name)}: no size: {pax[b'size'][:40]!r}")
        header = replace(header, size=int(pax[b"size"]))
    return header
