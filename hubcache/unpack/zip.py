"""Zip archives, from their directory at the end of a local file; reads stored and deflated members only.

The standard library's zipfile is not used: it stops a member at the size its header says, and so
does not see that it is longer, nor that members overlap, nor that the directory lost entries.
Format: PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from hubcache.core.artifact import RepoPath
from hubcache.errors import IntegrityError, UnsafeArchive
from hubcache.unpack.codecs import Feed, decode_one, plain
from hubcache.unpack.names import Member, Names
from hubcache.unpack.tally import Limits, Tally, label

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
# x: versions, times, disk numbers and what a local header repeats of the directory
_ENTRY = struct.Struct("<4s4x2H4x3L3H4x2L")
_LOCAL = struct.Struct("<4s2x2H4x12x2H")
_COMMENT = 0xFFFF  # bytes, at most
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_PATCH = 0x0020
_STORED, _DEFLATED = 0, 8
_FULL = 0xFFFFFFFF  # the value is in the zip64 field


class SeekableStream(Protocol):
    """A local file, or what reads like one."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, whence: int = ..., /) -> int: ...
    def tell(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Directory:
    """Where the directory stands; sizes and offsets in bytes."""

    offset: int
    size: int
    entries: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the directory says of one member; `bound` is where the next thing in the file begins."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    attributes: int
    offset: int
    bound: int = 0


class _Slice:
    """A Stream over one range of a file that others read too."""

    def __init__(self, file: SeekableStream, start: int, size: int) -> None:
        self._file = file
        self._at = start
        self._end = start + size

    def read(self, size: int, /) -> bytes:
        self._file.seek(self._at)
        piece = self._file.read(min(size, self._end - self._at))
        self._at += len(piece)
        return piece


def zip_members(file: SeekableStream, tally: Tally) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Yield each file and its content; all headers are checked before the first.

    Raises:
        UnsafeArchive, IntegrityError: see unpack().
    """
    entries = _read_directory(file, tally.limits)
    names = Names(tally.limits)
    files: list[tuple[RepoPath, _Entry, int]] = []
    for entry in entries:
        tally.begin(entry.name, entry.size)
        path = names.add(entry.name, folder=_check_kind(entry))
        start = _content_offset(file, entry)
        if path is not None:
            files.append((path, entry, start))
    for path, entry, start in files:
        tally.where = label(entry.name)
        yield Member(path, entry.size), _content(Feed(_Slice(file, start, entry.packed), tally), entry, tally)


def _content(feed: Feed, entry: _Entry, tally: Tally) -> Iterator[bytes]:
    size, crc = 0, 0
    for piece in plain(feed) if entry.method == _STORED else decode_one(feed, "deflate", tally):
        tally.count_unpacked(len(piece))
        size += len(piece)
        if size > entry.size:
            raise IntegrityError(f"{label(entry.name)}: is longer than the {entry.size} bytes it says")
        crc = zlib.crc32(piece, crc)
        yield piece
    if size < entry.size:
        raise IntegrityError(f"{label(entry.name)}: ends {entry.size - size} bytes short of its {entry.size}")
    if not feed.is_over():
        raise IntegrityError(f"{label(entry.name)}: packed data goes on after its end")
    if crc != entry.crc:
        raise IntegrityError(f"{label(entry.name)}: CRC-32 is {crc:08x}, not {entry.crc:08x} as the archive says")


def _content_offset(file: SeekableStream, entry: _Entry) -> int:
    header = _read_at(file, entry.offset, _LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise IntegrityError(f"{label(entry.name)}: no member begins where the directory says")
    _, flags, method, name_size, extra_size = _LOCAL.unpack(header)
    name = _read_at(file, entry.offset + _LOCAL.size, name_size)
    if name != entry.name.encode():
        raise UnsafeArchive(f"{label(entry.name)}: calls itself {name[:200]!r} in its own header")
    if flags & _ENCRYPTED or method != entry.method:
        raise UnsafeArchive(f"{label(entry.name)}: its own header and the directory say different things")
    start: int = entry.offset + _LOCAL.size + name_size + extra_size
    if start + entry.packed > entry.bound:
        raise UnsafeArchive(f"{label(entry.name)}: overlaps what follows it")
    return start


def _check_kind(entry: _Entry) -> bool:
    """Tell whether it is a folder.

    Raises:
        UnsafeArchive: it is encrypted, or neither a regular file nor a folder.
        IntegrityError: it is packed in a way that is not supported.
    """
    if entry.flags & _ENCRYPTED:
        raise UnsafeArchive(f"{label(entry.name)}: is encrypted")
    if entry.method not in {_STORED, _DEFLATED} or entry.flags & _PATCH:
        raise IntegrityError(
            f"{label(entry.name)}: packed by method {entry.method}, which is not supported",
            hint="pack it again as .tar.zst, or as .zip with deflate",
        )
    folder = entry.name.endswith("/")
    kind = stat.S_IFMT(entry.attributes >> 16)
    # Some tools give folders a file's mode; the slash decides, as in every unzip.
    if kind and kind != stat.S_IFREG and not (folder and kind == stat.S_IFDIR):
        what = "a symbolic link" if kind == stat.S_IFLNK else f"of the type {stat.filemode(kind)[0]!r}"
        raise UnsafeArchive(f"{label(entry.name)}: is {what}; only files and folders are unpacked")
    if folder and entry.size:
        raise UnsafeArchive(f"{label(entry.name)}: is a folder of {entry.size} bytes")
    return folder


def _read_directory(file: SeekableStream, limits: Limits) -> list[_Entry]:
    place = _find_directory(file)
    if place.entries > limits.members or place.size > limits.directory_bytes:
        raise UnsafeArchive(
            f"zip directory of {place.entries} entries in {place.size} bytes:"
            f" more than {limits.members} entries or {limits.directory_bytes} bytes"
        )
    content = _read_at(file, place.offset, place.size)
    entries: list[_Entry] = []
    at = 0
    while at < len(content) and len(entries) < place.entries:
        entry, at = _parse_entry(content, at)
        entries.append(entry)
    if at != place.size or len(entries) != place.entries:
        raise IntegrityError("the zip directory is not what the end of the archive says")
    return _bounded(entries, place.offset)


def _bounded(entries: list[_Entry], end: int) -> list[_Entry]:
    """Tell each entry where the next in the file begins; the order stays."""
    following: dict[int, int] = {}
    bound = end
    for entry in sorted(entries, key=lambda entry: entry.offset, reverse=True):
        if entry.offset >= bound:
            raise UnsafeArchive(f"{label(entry.name)}: overlaps another member or the directory")
        following[entry.offset] = bound
        bound = entry.offset
    return [replace(entry, bound=following[entry.offset]) for entry in entries]


def _find_directory(file: SeekableStream) -> _Directory:
    end = file.seek(0, os.SEEK_END)
    tail = _read_at(file, max(0, end - _END.size - _COMMENT), _END.size + _COMMENT)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise IntegrityError("not a zip archive, or cut off: it has no end record")
    _, disk, first_disk, here, entries, size, offset, comment = _END.unpack_from(tail, at)
    if disk or first_disk or here != entries or len(tail) - at - _END.size != comment:
        raise IntegrityError("zip archive in several parts, or with a corrupt end record")
    end += at - len(tail)
    locator = _read_at(file, max(0, end - _LOCATOR.size), _LOCATOR.size)
    if (entries == 0xFFFF or _FULL in {size, offset}) and locator.startswith(b"PK\6\7"):
        end, entries, size, offset = _read_zip64_end(file, locator, end)
    if offset + size > end:
        raise IntegrityError("the zip directory is not where the end of the archive says")
    return _Directory(offset, size, entries)


def _read_zip64_end(file: SeekableStream, locator: bytes, end: int) -> tuple[int, int, int, int]:
    corrupt = IntegrityError("zip archive with a corrupt zip64 end record")
    if len(locator) < _LOCATOR.size:
        raise corrupt
    _, _, place, _ = _LOCATOR.unpack(locator)
    record = _read_at(file, place, _END64.size) if place < end else b""
    if len(record) < _END64.size or not record.startswith(b"PK\6\6"):
        raise corrupt
    _, _, _, _, disk, first_disk, here, entries, size, offset = _END64.unpack(record)
    if disk or first_disk or here != entries:
        raise corrupt
    return place, entries, size, offset


def _parse_entry(directory: bytes, at: int) -> tuple[_Entry, int]:
    corrupt = IntegrityError(f"the zip directory is corrupt at byte {at}")
    if len(directory) - at < _ENTRY.size or directory[at : at + 4] != b"PK\1\2":
        raise corrupt
    _, flags, method, crc, packed, size, *lengths, attributes, offset = _ENTRY.unpack_from(directory, at)
    parts = []
    at += _ENTRY.size
    for length in lengths:  # name, extra fields, comment
        parts.append(directory[at : at + length])
        at += length
    if at > len(directory):
        raise corrupt
    raw, extra, _ = parts
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise UnsafeArchive(f"{label(raw)}: the name is not UTF-8") from error
    size, packed, offset = _widen(name, (size, packed, offset), extra)
    return _Entry(name, flags, method, crc, packed, size, attributes, offset), at


def _widen(name: str, values: tuple[int, int, int], extra: bytes) -> tuple[int, int, int]:
    """Replace each 32-bit value that is full by the next of the zip64 extra field (section 4.5.3)."""
    field = b""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        if kind == 1:
            field = extra[4 : 4 + size]
        extra = extra[4 + size :]
    widened = []
    for value in values:
        if value == _FULL and len(field) < 8:
            raise IntegrityError(f"{label(name)}: its zip64 sizes are missing")
        widened.append(int.from_bytes(field[:8], "little") if value == _FULL else value)
        field = field[8:] if value == _FULL else field
    size, packed, offset = widened
    return size, packed, offset


def _read_at(file: SeekableStream, offset: int, size: int) -> bytes:
    file.seek(offset)
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
