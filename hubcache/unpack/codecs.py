"""Decompression in bounded pieces, of every stream in a file up to its verified end; knows no archive format."""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from hubcache.errors import IntegrityError
from hubcache.unpack.tally import Tally

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK = 1 << 20  # bytes unpacked at a time, at most
_PACKED_CHUNK = 1 << 16  # bytes read at a time
# xz -9 needs 65 MiB; a header may ask for 4 GiB. (zstd refuses windows over 128 MiB by itself.)
_XZ_MEMORY = 256 << 20
# OSError is how bz2 says that its input is corrupt.
_CORRUPT = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError, ValueError)


class Stream(Protocol):
    """Bytes that arrive in order."""

    def read(self, size: int, /) -> bytes:
        """Return 1 to `size` bytes, b"" at the end."""
        ...


class Codec(Protocol):
    """What the standard library's decompressors of one stream have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Inflate:
    """A Codec over zlib, whose own decompressor has another shape; `wbits` 31 is gzip, -15 bare deflate."""

    def __init__(self, wbits: int) -> None:
        self._zlib = zlib.decompressobj(wbits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        unpacked = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        # A full piece may leave more inside zlib, even where it has taken all input.
        self.needs_input = len(unpacked) < max_length and not self._zlib.unconsumed_tail
        return unpacked


CODECS: dict[str, Callable[[], Codec]] = {
    "gzip": lambda: Inflate(31),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
    "zstd": zstd.ZstdDecompressor,
    "deflate": lambda: Inflate(-15),
}


class Feed:
    """Packed bytes on their way into codecs: counted, and what one codec leaves is the next one's."""

    def __init__(self, stream: Stream, tally: Tally) -> None:
        self._stream = stream
        self._tally = tally
        self._rest = b""

    def take(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        if self._rest:
            piece, self._rest = self._rest, b""
            return piece
        piece = self._stream.read(_PACKED_CHUNK)
        self._tally.count_packed(len(piece))
        return piece

    def put_back(self, rest: bytes) -> None:
        """Keep what was taken and not used."""
        self._rest = rest + self._rest

    def is_over(self) -> bool:
        """Tell whether nothing follows."""
        self.put_back(self.take())
        return not self._rest

    def skip_zeros(self) -> None:
        """Skip zero bytes: padding between and after streams (xz: section 2.2; gzip: for tapes)."""
        while not self.is_over():
            self._rest = self._rest.lstrip(b"\0")
            if self._rest:
                return


def plain(feed: Feed) -> Iterator[bytes]:
    """Yield what is not compressed, as it is."""
    while piece := feed.take():
        yield piece


def decode(feed: Feed, compression: str, tally: Tally) -> Iterator[bytes]:
    """Unpack every stream (gzip member, zstd frame) of the feed, in pieces of at most CHUNK bytes.

    Raises:
        IntegrityError: a stream is corrupt or ends early, or something else follows the last.
    """
    while True:
        yield from decode_one(feed, compression, tally)
        feed.skip_zeros()
        if feed.is_over():
            return


def decode_one(feed: Feed, compression: str, tally: Tally) -> Iterator[bytes]:
    """Unpack one stream and leave what follows it in the feed.

    Raises:
        IntegrityError: it is corrupt or ends early.
    """
    codec = CODECS[compression]()
    while not codec.eof:
        packed = feed.take() if codec.needs_input else b""
        if codec.needs_input and not packed:
            raise IntegrityError(f"the {compression} data ends too early, at or after the {tally.where}")
        try:
            unpacked = codec.decompress(packed, CHUNK)
        except _CORRUPT as error:
            raise IntegrityError(
                f"the {compression} data is corrupt, at or after the {tally.where}: {error}"
            ) from error
        if unpacked:
            yield unpacked
    feed.put_back(codec.unused_data)
