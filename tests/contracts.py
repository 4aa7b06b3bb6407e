"""What every Source and Store promises (core/ports.py), as classes of tests to subclass."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest

from hubcache.core.artifact import Artifact, Entry, Manifest, RepoId, RepoPath, Revision, is_commit
from hubcache.core.digests import Blob, digest_bytes
from hubcache.core.ports import Content, Source, Store
from hubcache.core.reference import Reference
from hubcache.crew import Stop
from hubcache.errors import EntryNotFound, HubcacheError, IntegrityError, SourceUnavailable
from hubcache.transfer import WritableStore


def read_all(content: Content, limit: int = 1 << 16) -> bytes:
    """Read a content to its end, and close it."""
    with content:
        chunks = []
        while chunk := content.read(limit):
            assert len(chunk) <= limit
            chunks.append(chunk)
        return b"".join(chunks)


class SourceContract:
    """Subclass with the fixtures `source`, `reference` (that exists), `files` (its bytes by path), `absent`
    (references that do not exist, with the error each is answered by) and `down`, which takes upstream away;
    `down` skips where there is no upstream."""

    @pytest.fixture
    def source(self) -> Source:
        raise NotImplementedError

    @pytest.fixture
    def reference(self) -> Reference:
        raise NotImplementedError

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        raise NotImplementedError

    @pytest.fixture
    def absent(self) -> list[tuple[Reference, type[HubcacheError]]]:
        raise NotImplementedError

    @pytest.fixture
    def down(self) -> Callable[[], None]:
        pytest.skip("nothing to take away")

    @pytest.fixture
    def artifact(self, source: Source, reference: Reference) -> Artifact:
        return source.resolve(reference)

    @pytest.fixture
    def path(self, files: dict[str, bytes]) -> RepoPath:
        """The largest file."""
        return RepoPath(max(files, key=lambda path: len(files[path])))

    def test_resolving_pins_a_commit(self, artifact: Artifact, reference: Reference) -> None:
        assert is_commit(artifact.revision.commit)
        assert (artifact.repo, artifact.revision.asked) == (reference.repo, reference.revision)

    def test_the_manifest_names_every_file_by_its_digest(self, artifact: Artifact, files: dict[str, bytes]) -> None:
        expected = {
            path: Blob(digest_bytes(artifact.entry(RepoPath(path)).blob.digest.algorithm, content), len(content))
            for path, content in files.items()
        }
        assert {path: entry.blob for path, entry in artifact.manifest.files.items()} == expected

    @pytest.mark.timeout(30)
    def test_the_same_reference_resolves_to_the_same_artifact(
        self, source: Source, artifact: Artifact, reference: Reference
    ) -> None:
        assert source.resolve(reference) == artifact

    def test_what_does_not_exist_is_answered_so(
        self, source: Source, absent: list[tuple[Reference, type[HubcacheError]]]
    ) -> None:
        for missing, error in absent:
            with pytest.raises(error):
                source.resolve(missing)

    def test_every_file_opens_with_its_bytes(self, source: Source, artifact: Artifact, files: dict[str, bytes]) -> None:
        assert {path: read_all(source.open(artifact, RepoPath(path))) for path in files} == files

    @pytest.mark.parametrize(("start", "end"), [(0, 1), (3, 7), (5, None), (0, None)])
    def test_a_range_opens_with_its_bytes(
        self, start: int, end: int | None, source: Source, artifact: Artifact, path: RepoPath, files: dict[str, bytes]
    ) -> None:
        content = source.open(artifact, path, start, end)
        assert (content.start, content.end, content.total) == (start, end or len(files[path]), len(files[path]))
        assert read_all(content, limit=3) == files[path][start:end]

    def test_reading_past_the_end_gives_nothing(self, source: Source, artifact: Artifact, path: RepoPath) -> None:
        with source.open(artifact, path) as content:
            while content.read(1 << 16):
                pass
            assert content.read(1 << 16) == b""

    def test_two_contents_of_one_file_do_not_disturb_each_other(
        self, source: Source, artifact: Artifact, path: RepoPath, files: dict[str, bytes]
    ) -> None:
        with source.open(artifact, path) as one, source.open(artifact, path) as other:
            assert one.read(2) + other.read(2) == files[path][:2] * 2

    def test_a_file_the_commit_lacks_is_refused_before_open_returns(self, source: Source, artifact: Artifact) -> None:
        with pytest.raises(EntryNotFound):
            source.open(artifact, RepoPath("no/such.file"))

    def test_a_content_says_where_it_comes_from(self, source: Source, artifact: Artifact, path: RepoPath) -> None:
        with source.open(artifact, path) as content:
            assert content.origin

    @pytest.mark.slow
    def test_an_upstream_that_is_down_is_no_answer(
        self, source: Source, reference: Reference, down: Callable[[], None]
    ) -> None:
        down()
        with pytest.raises(SourceUnavailable):
            source.resolve(reference)


class StoreContract:
    """Subclass with the fixture `store`: an empty one."""

    FILES: ClassVar = {RepoPath("config.json"): b"{}", RepoPath("a/w.bin"): b"weights" * 99, RepoPath("empty"): b""}
    REPO = RepoId("hf", "model", "org/kept")
    REFERENCE = Reference("hf", "org/kept", REPO)

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    @pytest.fixture
    def writable(self, store: Store) -> WritableStore:
        assert hasattr(store, "write")
        return store

    @pytest.fixture
    def artifact(self) -> Artifact:
        files = {path: Entry(blob_of(content)) for path, content in self.FILES.items()}
        return Artifact(self.REPO, Revision("main", "c0ffee" * 6 + "c0ff"), Manifest(files), origin="a test")

    @pytest.fixture
    def filled(self, store: Store, writable: WritableStore, artifact: Artifact) -> Store:
        for content in self.FILES.values():
            write(writable, self.REPO, blob_of(content), content)
        store.commit(artifact, self.REFERENCE)
        return store

    def test_what_was_never_written_is_not_there(self, store: Store) -> None:
        assert not store.has(self.REPO, blob_of(b"never"))

    def test_a_repo_that_was_never_committed_is_no_answer(self, store: Store) -> None:
        with pytest.raises(SourceUnavailable):
            store.resolve(self.REFERENCE)

    def test_bytes_are_not_there_before_they_are_published(self, store: Store, writable: WritableStore) -> None:
        blob = blob_of(b"bytes")
        with writable.write(self.REPO, blob, stop=Stop()) as writer:
            assert writer.partial is not None
            writer.partial.write(0, b"bytes")
            assert not store.has(self.REPO, blob)
        assert not store.has(self.REPO, blob)

    def test_bytes_are_there_once_published(self, store: Store, writable: WritableStore) -> None:
        write(writable, self.REPO, blob_of(b"bytes"), b"bytes")
        assert store.has(self.REPO, blob_of(b"bytes"))

    def test_wrong_bytes_are_refused(self, store: Store, writable: WritableStore) -> None:
        with pytest.raises(IntegrityError, match=r"example\.com"):
            write(writable, self.REPO, blob_of(b"right"), b"wrong")
        assert not store.has(self.REPO, blob_of(b"right"))

    def test_after_wrong_bytes_the_writer_takes_right_ones(self, store: Store, writable: WritableStore) -> None:
        with writable.write(self.REPO, blob_of(b"right"), stop=Stop()) as writer:
            assert writer.partial is not None
            writer.partial.write(0, b"wrong")
            with pytest.raises(IntegrityError):
                writer.publish({"example.com"})
            writer.partial.write(0, b"right")
            writer.publish({"example.com"})
        assert store.has(self.REPO, blob_of(b"right"))

    def test_bytes_left_by_one_writer_are_taken_over_by_the_next(self, writable: WritableStore) -> None:
        blob = blob_of(b"bytes")
        with writable.write(self.REPO, blob, stop=Stop()) as writer:
            assert writer.partial is not None
            writer.partial.write(0, b"by")
        with writable.write(self.REPO, blob, stop=Stop()) as writer:
            assert writer.partial is not None
            assert writer.partial.missing() == [(2, 5)]

    def test_a_blob_that_is_there_needs_no_writing(self, writable: WritableStore) -> None:
        write(writable, self.REPO, blob_of(b"bytes"), b"bytes")
        with writable.write(self.REPO, blob_of(b"bytes"), stop=Stop()) as writer:
            assert writer.partial is None

    @pytest.mark.parametrize("revision", ["main", "c0ffee" * 6 + "c0ff"])
    def test_a_commit_is_found_by(self, revision: str, filled: Store, artifact: Artifact) -> None:
        found = filled.resolve(Reference("hf", "org/kept", self.REPO, revision))
        assert (found.revision.commit, found.manifest) == (artifact.revision.commit, artifact.manifest)

    def test_what_was_written_is_read_back(self, filled: Store) -> None:
        artifact = filled.resolve(self.REFERENCE)
        assert {path: read_all(filled.open(artifact, path)) for path in self.FILES} == self.FILES

    def test_committing_again_changes_nothing(self, filled: Store, artifact: Artifact) -> None:
        folder = filled.commit(artifact, self.REFERENCE)
        before = {file: file.lstat().st_mtime_ns for file in folder.parent.parent.rglob("*")}
        filled.commit(artifact, self.REFERENCE)
        assert {file: file.lstat().st_mtime_ns for file in folder.parent.parent.rglob("*")} == before


def blob_of(content: bytes) -> Blob:
    return Blob(digest_bytes("git-sha1", content), len(content))


def write(store: WritableStore, repo: RepoId, blob: Blob, content: bytes) -> None:
    """Write and publish a blob as if it came from example.com."""
    with store.write(repo, blob, stop=Stop()) as writer:
        assert writer.partial is not None
        writer.partial.write(0, content)
        writer.publish({"example.com"})
