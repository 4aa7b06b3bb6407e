"""A Source made of what is no git repo: everything is fetched into a stage, and the commit is computed from it."""

from __future__ import annotations

import shutil
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from hubcache.core.artifact import Artifact, RepoId, RepoPath, Revision
from hubcache.core.gitobj import commit_of
from hubcache.core.layout import ORIGINAL
from hubcache.core.plan import Preview
from hubcache.core.ports import Memory, Recalled, Stage
from hubcache.core.reference import Reference
from hubcache.errors import EntryNotFound, IntegrityError, SourceUnavailable
from hubcache.localfile import FileContent


@dataclass(frozen=True, slots=True)
class Published:
    """Where content came from, and what upstream answers as long as it is current (None: cannot tell)."""

    origin: str
    validator: str | None


class Publication(Protocol):
    """One kind of upstream that publishes files without commits."""

    def probe(self, reference: Reference, /) -> str | None:
        """Ask, in one small request, for upstream's validator; None where it has none to tell."""
        ...

    def preview(self, reference: Reference, /) -> Preview:
        """Say what publish would fetch."""
        ...

    def publish(self, reference: Reference, stage: Stage, /) -> Published:
        """Fetch everything into the stage, going on where an earlier process stopped."""
        ...


class StagedSource:
    """Turns a publication into artifacts; holds its stages until it is closed."""

    def __init__(self, publication: Publication, memory: Memory) -> None:
        self._publication = publication
        self._memory = memory
        self._held: dict[tuple[RepoId, str], ExitStack] = {}
        self._known: dict[Reference, Recalled] = {}
        self._stages: dict[tuple[RepoId, str], Stage] = {}
        self._recalled: dict[tuple[RepoId, str], Reference] = {}
        self._fetching = threading.Lock()

    def resolve(self, reference: Reference, /) -> Artifact:
        """Pin a reference: by its validator if this very content was pulled before, else by fetching it."""
        if (current := self._recall(reference)) is not None:
            return self._artifact(reference, current)
        # Asked before anything is made on the disk: a wrong reference leaves no trace.
        self._publication.probe(reference)
        with self._fetching:
            stage = self._hold_stage(reference)
            # Another process may have finished while this one waited for the stage.
            current = self._recall(reference) or self._publish(reference, stage)
        return self._artifact(reference, current)

    def open(self, artifact: Artifact, path: RepoPath, start: int = 0, end: int | None = None) -> FileContent:
        """Open a staged file; it may be moved into the store. Known content whose bytes are gone is fetched again."""
        artifact.entry(path)
        key = artifact.repo, artifact.revision.commit
        with self._fetching:
            stage = self._stages.get(key)
            if stage is None or not stage.file(path).exists():
                self._fetch_again(key)
            return FileContent(self._stages[key].file(path), start, end, movable=True)

    def preview(self, reference: Reference, /) -> Preview | None:
        """Say what resolving would fetch; None where it would fetch nothing."""
        return None if self._recall(reference) is not None else self._publication.preview(reference)

    def close(self) -> None:
        """Let go of the stages."""
        while self._held:
            self._held.popitem()[1].close()

    def _hold_stage(self, reference: Reference) -> Stage:
        """Hold the reference's stage; one held already is given back first, for its lock admits nobody twice."""
        key = reference.repo, reference.address
        if key in self._held:
            self._held.pop(key).close()
        held = ExitStack()
        stage = held.enter_context(self._memory.stage(reference))
        self._held[key] = held
        return stage

    def _fetch_again(self, key: tuple[RepoId, str]) -> None:
        repo, commit = key
        reference = self._recalled.get(key)
        if reference is None:
            raise EntryNotFound(f"{repo}@{commit[:12]}: its source has no files by commit")
        published = self._publish(reference, self._hold_stage(reference))
        if published.commit != commit:
            raise SourceUnavailable(f"{reference.address} now has other content than {commit[:12]}")

    def _publish(self, reference: Reference, stage: Stage) -> Recalled:
        try:
            published = self._publication.publish(reference, stage)
        except IntegrityError:
            shutil.rmtree(stage.folder, ignore_errors=True)
            raise
        manifest = stage.manifest()
        commit = commit_of(manifest)
        self._stages[reference.repo, commit] = stage
        self._recalled[reference.repo, commit] = reference
        self._known[reference] = Recalled(commit, manifest, published.validator, published.origin)
        return self._known[reference]

    def _recall(self, reference: Reference) -> Recalled | None:
        recalled = self._known.get(reference) or self._memory.recall(reference)
        if recalled is None or recalled.validator is None:
            return None
        if self._publication.probe(reference) != recalled.validator:
            return None
        self._recalled[reference.repo, recalled.commit] = reference
        return recalled

    def _artifact(self, reference: Reference, known: Recalled) -> Artifact:
        return Artifact(
            reference.repo,
            Revision(reference.revision, known.commit),
            known.manifest,
            validator=known.validator,
            origin=known.origin,
            refs=(ORIGINAL,),
        )
