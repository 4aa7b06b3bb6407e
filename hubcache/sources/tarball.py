"""Archives and single files at plain URLs, as object stores hold them: unpacked while they arrive."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hubcache.core.artifact import RepoPath, parse_path
from hubcache.core.origins import redact
from hubcache.core.plan import Preview
from hubcache.core.ports import Progress, Stage
from hubcache.core.reference import Reference
from hubcache.core.urls import archive_suffix, decode
from hubcache.crew import Stop
from hubcache.errors import HubcacheError, IntegrityError
from hubcache.fetch import Run
from hubcache.net import Net
from hubcache.partial import PartialFile
from hubcache.sources.download import Remote, describe, fetch_into, partial_at
from hubcache.sources.registry import SourceConfig
from hubcache.sources.staged import Published, StagedSource
from hubcache.unpack import SeekableStream, Stream, strip_wrapping, unpack


class UrlPublication:
    """One file at a URL: unpacked if its name is an archive's, kept as it is otherwise."""

    def __init__(self, net: Net, progress: Progress) -> None:
        self._net = net
        self._progress = progress

    def probe(self, reference: Reference, /) -> str | None:
        """Ask for the URL's validator."""
        return describe(self._net, reference.address).validator

    def preview(self, reference: Reference, /) -> Preview:
        """Name the one file that would be fetched."""
        return Preview(((reference.address, describe(self._net, reference.address).size),))

    def publish(self, reference: Reference, stage: Stage, /) -> Published:
        """Fetch the URL, check it against `#sha256=…` where that was given, and stage what it holds."""
        remote = describe(self._net, reference.address)
        stage.require_space(remote.size or 0)
        expected = reference.argument("sha256")
        algorithms = ("sha256",) if expected else ()
        partial = partial_at(stage.folder / "download", remote, algorithms=algorithms, progress=self._progress)
        try:
            name = decode(reference.address.partition("?")[0].rpartition("/")[2])
            suffix = archive_suffix(name)
            with _fetching(partial, self._net, remote, self._progress) as arriving:
                if suffix is not None:
                    stage_archive(_SpoolReader(partial, arriving), suffix, stage)
                arriving.wait()
            if expected and (computed := partial.digests()["sha256"]) != expected:
                partial.discard()
                raise IntegrityError(
                    f"{redact(reference.address)} has the sha256 {computed}, not {expected}; nothing was kept"
                )
        finally:
            partial.close()
        if suffix is None:
            stage.place(parse_path(name), partial.path)
        self._progress.finish_file(name)
        return Published(redact(reference.address), remote.validator)


def stage_archive(stream: Stream | SeekableStream, suffix: str, stage: Stage) -> None:
    """Unpack an archive into the stage, without the one folder that may wrap all of it.

    Raises:
        UnsafeArchive, IntegrityError: nothing of it is published.
    """
    paths: list[RepoPath] = []
    for member, chunks in unpack(stream, suffix):
        stage.write(member.path, chunks, member.size)
        paths.append(member.path)
    stage.rename(strip_wrapping(paths))


class _Arriving:
    """A download in a thread of its own; whoever waits for it gets its failure.

    `ended` is set when it is over, for whatever reason; `run` stops it.
    """

    def __init__(self, progress: Progress) -> None:
        self.ended = Stop()
        self.run = Run(progress)
        self.failure: HubcacheError | None = None
        self.thread: threading.Thread | None = None

    def wait(self) -> None:
        """Wait for the download's end; raise what ended it early."""
        while self.thread is not None and self.thread.is_alive():
            self.thread.join(0.2)
        self.check()

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure


@contextmanager
def _fetching(partial: PartialFile, net: Net, remote: Remote, progress: Progress) -> Iterator[_Arriving]:
    arriving = _Arriving(progress)

    def run() -> None:
        try:
            fetch_into(partial, net, remote, arriving.run)
        except HubcacheError as error:
            arriving.failure = error
        finally:
            arriving.ended.set()

    arriving.thread = threading.Thread(target=run, daemon=True)
    arriving.thread.start()
    try:
        yield arriving
    except HubcacheError:
        # A broken-off download makes the unpacker see an end that is none: the download's own failure is the reason.
        arriving.check()
        raise
    finally:
        arriving.run.stop.set()


class _SpoolReader:
    """The file as it arrives: reads wait for the bytes; seeking waits for the end."""

    def __init__(self, partial: PartialFile, arriving: _Arriving) -> None:
        self._partial = partial
        self._arriving = arriving
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, b"" at the end of the file."""
        reached = self._partial.wait_beyond(self._at, self._arriving.ended)
        if reached == self._at:
            self._arriving.wait()
            reached = self._partial.received()
        left = reached - self._at
        chunk = self._partial.read(self._at, left if size < 0 else min(size, left)) if left > 0 else b""
        self._at += len(chunk)
        return chunk

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to an offset, once all of the file is here."""
        self._arriving.wait()
        start = {0: 0, 1: self._at, 2: self._partial.received()}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Return the offset."""
        return self._at

    def seekable(self) -> bool:
        """Say that seeking works."""
        return True


def make(config: SourceConfig) -> StagedSource:
    """Make the source of http and https URLs."""
    return StagedSource(UrlPublication(config.net, config.progress), config.memory)
