"""copy(source, plan, store): the one verb; what is missing core/plan.py says, how a file is fetched fetch.py.

Wrong bytes are a mirror's doing: it is named, asked no more in this run, and the file comes from another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from hubcache.core.artifact import Artifact, RepoId
from hubcache.core.digests import Blob
from hubcache.core.plan import CopyPlan, PlannedFile
from hubcache.core.ports import Content, Mirrored, Progress, Source
from hubcache.core.ranges import RangeSet
from hubcache.crew import Crew, Stop, start_workers
from hubcache.errors import IntegrityError, SourceUnavailable
from hubcache.fetch import CONNECTIONS, SMALL, Run, TransferLimits, fill
from hubcache.partial import Evidence, PartialFile


class BlobWriter(Protocol):
    """A blob on its way into a store: fill `partial`, then publish, or leave it to be resumed."""

    partial: PartialFile | None
    """None: the store has the blob by now, another process brought it."""

    def publish(self, origins: Collection[str], /) -> None:
        """Verify the digest and give the bytes their name; `partial` is a fresh one if they were wrong.

        Raises:
            IntegrityError: the bytes are not the blob's; they are dropped.
        """
        ...


class WritableStore(Protocol):
    """What copy needs of a store."""

    def write(self, repo: RepoId, blob: Blob, /, stop: Stop) -> AbstractContextManager[BlobWriter]: ...


def copy(
    source: Source,
    plan: CopyPlan,
    store: WritableStore,
    *,
    progress: Progress,
    limits: TransferLimits | None = None,
    wanted: Callable[[], Iterable[int]] = tuple,
    stop: Stop | None = None,
) -> None:
    """Bring every missing blob of the plan from the source into the store, verified.

    Small files share many connections, large ones get several each. The first failure stops the
    rest; what has arrived stays and is resumed next time. `wanted` tells, of a large file that is copied alone,
    the offsets that somebody waits for. When `stop` is set, it returns with what has come by then.

    Raises:
        IntegrityError: bytes that are not what the manifest says, with their origin.
        NotFound, AccessDenied, SourceUnavailable, DiskFull: as the source and the store raise them.
    """
    limits = limits or TransferLimits(connections=source.connections if isinstance(source, Mirrored) else CONNECTIONS)
    run = Run(progress, limits, Stop(stop), wanted)
    progress.begin(len(plan.missing), plan.missing_size)

    def job(file: PlannedFile) -> Callable[[], None]:
        return lambda: _FileCopy(source, plan.artifact, file, run).into(store)

    crew = Crew(run.stop)
    start_workers(crew, [job(file) for file in plan.missing if file.blob.size > SMALL], run.limits.large_files)
    start_workers(crew, [job(file) for file in plan.missing if file.blob.size <= SMALL], run.limits.small_files)
    crew.finish()


class _FileCopy:
    """One file's way from the source into a store, and the search for whoever sent wrong bytes of it."""

    def __init__(self, source: Source, artifact: Artifact, file: PlannedFile, run: Run) -> None:
        self._source = source
        self._mirrors = source if isinstance(source, Mirrored) else None
        self._artifact = artifact
        self._file = file
        self._run = run
        self._partial: PartialFile | None = None
        self._sent: dict[str, RangeSet] = {}
        self._alone: list[str] = []
        self._suspicion: tuple[Evidence, Mapping[str, RangeSet]] | None = None

    def into(self, store: WritableStore) -> None:
        """Fetch, verify and publish the file."""
        stop = self._run.stop
        with store.write(self._artifact.repo, self._file.blob, stop=stop) as writer:
            try:
                while (partial := writer.partial) is not None and not stop.is_set():
                    self._try(writer, partial)
            finally:
                if self._suspicion is not None:
                    self._suspicion[0].close()
        if not stop.is_set():
            self._run.progress.finish_file(self._file.path)

    def _try(self, writer: BlobWriter, partial: PartialFile) -> None:
        resumed = partial.resumed
        self._run.progress.advance(resumed, "resumed")
        evidence: Evidence | None = None
        if partial is not self._partial:
            self._partial, self._sent = partial, {}
        sent = self._sent
        try:
            fill(partial, self._open, self._run, sent)
            if self._run.stop.is_set():
                return
            evidence = partial.evidence() if len(sent) > 1 or self._suspicion else None
            writer.publish(sorted(sent))
            if evidence is not None:
                self._convict(evidence)
        except SourceUnavailable:
            if len(self._alone) < 2:
                raise
            self._run.progress.advance(-resumed, "resumed")
            del self._alone[0]
        except IntegrityError as error:
            kept = writer.partial is partial
            self._run.progress.advance(-(resumed if kept else self._file.blob.size), "discarded")
            # Bytes of an earlier process may be the bad ones: nobody is blamed before a try from zero.
            if error.origins or not resumed or kept:
                evidence = self._judge(error, evidence, sent)
        finally:
            if evidence is not None:
                evidence.close()

    def _open(self, start: int, end: int | None) -> Content:
        if self._mirrors is not None and self._alone:
            return self._mirrors.open_at(self._alone[0], self._artifact, self._file.path, start, end)
        return self._source.open(self._artifact, self._file.path, start, end)

    def _judge(self, error: IntegrityError, evidence: Evidence | None, sent: Mapping[str, RangeSet]) -> Evidence | None:
        """Drop the mirror that sent wrong bytes; of several, find out which, by a copy from one of them alone.

        Which of them is tried alone first is the origin's turn; where one gives no answer, the next one's.

        Returns the evidence, unless it is kept for that.

        Raises:
            IntegrityError: nobody else is left to ask.
        """
        suspects = error.origins or tuple(sorted(sent))
        named = IntegrityError(f"{self._artifact.repo}/{self._file.path}: {error.message}", hint=error.hint)
        if self._mirrors is None or not suspects:
            raise named from error
        # Asked once only: suspects that cannot be told apart then are dropped together, so that this ends.
        if len(suspects) > 1 and evidence is not None and self._suspicion is None:
            self._alone = sorted(suspects, key=lambda origin: origin != self._artifact.origin)
            self._suspicion = evidence, sent
            return None
        self._alone = []
        if not self._mirrors.drop(suspects):
            raise named from error
        return evidence

    def _convict(self, right: Evidence) -> None:
        """Drop the mirrors whose part of the wrong file differs from the right one."""
        if self._suspicion is None or self._mirrors is None:
            return
        wrong, sent = self._suspicion
        self._suspicion = None
        with wrong:
            guilty = [origin for origin, ranges in sent.items() if any(wrong.differs(right, *each) for each in ranges)]
        self._mirrors.drop(guilty)
