"""Archives unpacked as they arrive, member by member, safe names and whole contents only; writes nothing to disk."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from typing import cast

from hubcache.core.artifact import RepoPath
from hubcache.errors import BadReference, IntegrityError, UsageError
from hubcache.unpack.codecs import Stream
from hubcache.unpack.names import Member
from hubcache.unpack.tally import Limits, Tally, label
from hubcache.unpack.tar import COMPRESSIONS, tar_members
from hubcache.unpack.zip import SeekableStream, zip_members

__all__ = ["SUFFIXES", "Limits", "Member", "SeekableStream", "Stream", "strip_wrapping", "unpack"]

SUFFIXES = (*COMPRESSIONS, ".zip")
_DEFAULT = Limits()


def unpack(stream: Stream, suffix: str, *, limits: Limits = _DEFAULT) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Yield each regular file of an archive with its content, in chunks of at most 1 MiB.

    `suffix` is one of SUFFIXES. A tar is read forward only, while it arrives, to the very end of
    the stream. A zip's directory is at its end, so `.zip` takes a SeekableStream, a local file.

    A content is read before the next member is asked for; what is left of it then is read and
    checked, but gone. Only when the iteration has ended is the whole archive known to be good: a
    tar yields its first files before its last are seen.

    Folders are checked and not yielded. So are macOS's `._*`, `.DS_Store` and `__MACOSX/`.

    Raises:
        BadReference: no such suffix. UsageError: a zip that cannot seek. Both before it returns.
        UnsafeArchive: a member that is no file or folder, with a name that is unsafe somewhere or
            collides with another, or over a limit; the message names it.
        IntegrityError: corrupt, cut off, not what its headers say, or with no file in it.
    """
    if suffix not in SUFFIXES:
        raise BadReference(f"no archive's suffix: {suffix!r}", hint=f"one of: {' '.join(SUFFIXES)}")
    tally = Tally(limits)
    if suffix != ".zip":
        return _in_turn(tar_members(stream, suffix, tally))
    return _in_turn(zip_members(_seekable(stream), tally))


def strip_wrapping(paths: Collection[RepoPath]) -> dict[RepoPath, RepoPath]:
    """Map each path to what it is without the one folder that wraps all of them; to itself where none does.

    Raises:
        IntegrityError: there are no paths.
    """
    if not paths:
        raise IntegrityError("the archive holds no files")
    tops = {path.partition("/")[0] for path in paths}
    wrapped = len(tops) == 1 and all("/" in path for path in paths)
    return {path: RepoPath(path.partition("/")[2]) if wrapped else path for path in paths}


def _seekable(stream: Stream) -> SeekableStream:
    try:
        file = cast("SeekableStream", stream)
        file.seek(file.tell())
    except (AttributeError, io.UnsupportedOperation) as error:
        raise UsageError("a .zip is read from its end: it needs a local file, not a stream") from error
    return file


class _Turn:
    """A content that can be read until the next member is asked for."""

    def __init__(self, member: Member, chunks: Iterator[bytes]) -> None:
        self._name = label(member.path)
        self._chunks = chunks
        self._gone = False
        self._broken = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._gone:
            raise UsageError(f"{self._name}: its content is read before the next member is asked for")
        if self._broken:
            raise IntegrityError(f"{self._name}: reading it failed before")
        self._broken = True
        chunk = next(self._chunks, None)
        self._broken = False
        if chunk is None:
            raise StopIteration
        return chunk

    def end(self) -> None:
        """Read and check what is left; a content that was not read to its end cannot be read any more."""
        self._gone = sum(1 for _ in self) > 0


def _in_turn(members: Iterator[tuple[Member, Iterator[bytes]]]) -> Iterator[tuple[Member, Iterator[bytes]]]:
    count = 0
    for member, chunks in members:
        turn = _Turn(member, chunks)
        yield member, turn
        turn.end()
        count += 1
    if not count:
        raise IntegrityError("the archive holds no files")
