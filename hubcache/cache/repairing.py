"""Carries out what a repair needs of the disk: sets aside, links, writes again; where bytes come from is not its own.

Whatever was found is looked at once more before it is touched, for another process may have been quicker.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.cache.links import follow
from hubcache.cache.locks import held
from hubcache.cache.permissions import unshared_listings
from hubcache.cache.placing import link_files, place_files
from hubcache.cache.quarantine import FOLDER, Link, is_missed, set_aside
from hubcache.cache.repairplan import Links, Step, readable_commit
from hubcache.cache.shared import payload_path, replace_payload, users_of, without_users
from hubcache.cache.store import Cache
from hubcache.cache.writer import SUFFIX, leftovers
from hubcache.core.artifact import Artifact, Entry, Manifest, RepoPath, Revision, parse_path
from hubcache.core.digests import Blob, Digest, new_hasher
from hubcache.crew import Stop
from hubcache.errors import BadReference, CacheLocked
from hubcache.localfile import (
    disk_error,
    free_space,
    hash_file,
    lock_file,
    sync_folder,
    temporary_name,
    write_atomically,
)


class Repairer:
    """Repairs one repo's folder; `moved` is what it set aside so far: path in the repo's folder, bytes."""

    def __init__(self, cache: Cache, folder: RepoFolder) -> None:
        self._cache = cache
        self._folder = folder
        self._payloads: dict[str, Path] = {}  # of the shared store, by the repo's name for them
        self.moved: list[tuple[str, int]] = []

    def apply(self, step: Step) -> None:
        """Do what a step needs of the disk before anything is fetched.

        Raises:
            DiskFull, CacheError: the disk; CacheLocked where another process is at work there and does not end.
        """
        part = step.problem.path.partition("/")[0]
        if step.act == "leave" or (step.act == "fetch" and part in {"refs", "trees"}):
            return
        try:
            if step.act == "share":
                self._share()
            elif step.act == "delete":
                self._delete(step)
            elif part == "blobs":
                self._blob(step)
            elif part == "snapshots":
                self._snapshot(step)
            else:
                self._refs_and_trees(step)
        except OSError as error:
            raise disk_error(error, self._folder.path / step.problem.path) from error

    def place(self, artifact: Artifact, paths: Iterable[RepoPath]) -> None:
        """Put files whose bytes are here into a commit's snapshot, as this cache keeps them."""
        wanted = list(paths)
        for path in wanted:
            self._heal(artifact.entry(path).blob)
        try:
            place = link_files if self._cache.symlinks else place_files
            place(self._folder, artifact, wanted)
        except OSError as error:
            raise disk_error(error, self._folder.path) from error

    def replace_listing(self, commit: str, content: bytes) -> None:
        """Write a listing; a copy of the one that is there goes into quarantine."""
        file = self._folder.tree_path(commit)
        if file.is_dir() and not file.is_symlink():
            self.move(str(file.relative_to(self._folder.path)))
        else:
            self._keep_copy(file)
        write_atomically(file, content, scratch=self._folder.path)

    def write_ref(self, name: str, commit: str) -> None:
        """Write a ref whose snapshot's folder is made first, if need be."""
        try:
            self._folder.snapshot_path(commit).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, self._folder.snapshot_path(commit)) from error
        write_atomically(self._folder.ref_path(name), commit.encode(), scratch=self._folder.path)
        sync_folder(self._folder.ref_path(name).parent)

    def move(self, path: str, *, digest: Digest | None = None, links: Iterable[Link] = ()) -> Path:
        """Set a file aside."""
        file = self._folder.path / path
        size = _size(file)
        place = set_aside(self._folder, file, digest=digest, links=links)
        self.moved.append((path, size))
        return place

    # -- blobs

    def _blob(self, step: Step) -> None:
        file = self._folder.path / step.problem.path
        with self._locked(file.name):
            if not os.path.lexists(file) or self._is_right(file, step.digest):
                return
            links = Links(self._folder).of(file.name) | {link for link in step.links if is_missed(self._folder, link)}
            payload = self._payload(file)
            place = self.move(step.problem.path, digest=step.digest, links=links)
            if payload is not None:
                self._take_payload(payload, place, file.name)
            if step.act == "fetch" and step.digest is not None:
                self._keep_beginning(place, Blob(step.digest, step.size))

    def _is_right(self, file: Path, digest: Digest | None) -> bool:
        """Tell whether a blob is right by now; a link out of the repo is not, whatever it leads to."""
        is_ours = not file.is_symlink() or self._payload(file) is not None
        return digest is not None and is_ours and is_right(file, digest)

    def _payload(self, file: Path) -> Path | None:
        """Return what a blob's link leads to in the store that repos share, where it is a file there."""
        if not file.is_symlink():
            return None
        lead = follow(str(file), repo=str(self._folder.path), root=str(self._folder.root))
        is_there = lead.place == "store" and os.path.isfile(lead.end)
        return self._folder.root / payload_path(Path(lead.end).name) if is_there else None

    def _take_payload(self, payload: Path, place: Path, name: str) -> None:
        """Set a payload aside that nobody else uses; the others' is exchanged when sound bytes are here."""
        root = self._folder.root
        with without_users(root, payload.name, users_of(payload, root)) as is_free:
            if is_free:
                os.replace(payload, place)
            else:
                self._payloads[name] = payload

    def _keep_beginning(self, place: Path, blob: Blob) -> None:
        """Let a download go on where a blob was cut short; if those bytes are wrong, it begins again by itself."""
        size = _size(place)
        if not 0 < size < blob.size or place.is_symlink() or leftovers(self._folder, blob):
            return
        if free_space(place.parent) < blob.size + size:
            return
        temporary = temporary_name(self._folder.path / blob.digest.hex)
        shutil.copyfile(place, temporary)
        suffix = place.name.rpartition(".")[2]
        os.replace(temporary, self._folder.path / "blobs" / f"{blob.digest.hex}.{suffix}{SUFFIX}")

    def _heal(self, blob: Blob) -> None:
        """Give the shared store the sound bytes, for every repo that has them from there."""
        payload = self._payloads.pop(blob.digest.hex, None)
        file = self._folder.blob_path(blob.digest)
        if payload is None or not self._folder.has_blob(blob) or file.is_symlink():
            return
        try:
            place = self._folder.path / FOLDER / f"{blob.digest.hex}.{os.urandom(4).hex()}"
            replace_payload(payload, file, place, self._folder)
        except OSError as error:
            raise disk_error(error, payload) from error

    # -- snapshots

    def _snapshot(self, step: Step) -> None:
        file = self._folder.path / step.problem.path
        if step.act == "move":
            if os.path.lexists(file):
                self.move(step.problem.path)
            return
        if step.act == "link" and self._link(step):
            return
        for link in step.links:
            self._miss(link, step.digest)

    def _link(self, step: Step) -> bool:
        """Link to blobs that are here; False where one is not what its name says."""
        by_commit: dict[str, dict[RepoPath, Entry]] = {}
        for commit, path in step.links:
            listing = self._folder.listing(commit)
            entry = listing.files.get(parse_path(path)) if listing else None
            if entry is None or not is_right(self._folder.blob_path(entry.blob.digest), entry.blob.digest):
                return False
            by_commit.setdefault(commit, {})[parse_path(path)] = entry
        for commit, entries in by_commit.items():
            for path, entry in entries.items():
                self._clear((commit, path), entry.blob.digest)
            artifact = Artifact(self._folder.repo, Revision(commit, commit), Manifest(entries))
            self.place(artifact, entries)
        return True

    def _clear(self, link: Link, digest: Digest) -> None:
        """Set aside what is no link; a link is replaced at one stroke."""
        file = self._folder.snapshot_path(link[0]) / link[1]
        if os.path.lexists(file) and not file.is_symlink() and not is_right(file, digest):
            self.move(str(file.relative_to(self._folder.path)), digest=digest, links=[link])

    def _miss(self, link: Link, digest: Digest | None) -> None:
        file = self._folder.snapshot_path(link[0]) / link[1]
        if not os.path.lexists(file):
            return
        leads_right = not file.is_symlink() or (digest is not None and os.readlink(file).endswith(digest.hex))
        if digest is not None and leads_right and is_right(file, digest):
            return
        self.move(str(file.relative_to(self._folder.path)), digest=digest, links=[link])

    # -- refs, listings, the rest

    def _refs_and_trees(self, step: Step) -> None:
        part, _, name = step.problem.path.partition("/")
        file = self._folder.path / step.problem.path
        if step.act == "move":
            if os.path.lexists(file):
                self.move(step.problem.path)
        elif part == "trees":
            self._correct_sizes(step.problem.commit)
        elif (commit := readable_commit(self._folder, name)) and _has_a_place(self._folder, commit):
            self.write_ref(name, commit)
            self._link(step)

    def _correct_sizes(self, commit: str) -> None:
        """Write the sizes of the files whose bytes are right: a digest has but one."""
        file = self._folder.tree_path(commit)
        listing, told = self._folder.listing(commit), json.loads(file.read_bytes())
        for path, entry in listing.files.items() if listing else ():
            for place in (self._folder.blob_path(entry.blob.digest), self._folder.snapshot_path(commit) / path):
                if place.is_file() and _size(place) != entry.blob.size and is_right(place, entry.blob.digest):
                    row = told["files"][path]
                    if row.get("lfs_sha256") is None:
                        row["size"] = _size(place)
                    else:
                        row |= {"size": _size(place), "lfs_size": _size(place)}
        self.replace_listing(commit, json.dumps(told, indent=1).encode())

    def _keep_copy(self, file: Path) -> None:
        with suppress(FileNotFoundError):
            content = file.read_bytes() if file.is_file() else os.fsencode(os.readlink(file))
            place = self._folder.path / FOLDER / f"{file.name}.{os.urandom(4).hex()}"
            write_atomically(place, content, scratch=self._folder.path)
            self.moved.append((str(file.relative_to(self._folder.path)), len(content)))

    def _delete(self, step: Step) -> None:
        file = self._folder.path / step.problem.path
        try:
            fd = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            if lock_file(fd, file):  # else somebody writes to it
                file.unlink(missing_ok=True)
        finally:
            os.close(fd)

    def _share(self) -> None:
        for path, mode in unshared_listings(self._folder):
            os.chmod(self._folder.path / path, stat.S_IMODE(mode))

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the blob's lock, as huggingface_hub does while it downloads it."""
        lock = self._folder.lock_path(name)

        def progress() -> object:
            return [(file.name, _size(file)) for file in self._folder.partials()]

        try:
            Digest.parse(name)
        except BadReference:  # no client ever locks such a name
            yield
            return
        with held(lock, progress_of=progress, stop=Stop()) as is_held:
            if not is_held:
                raise CacheLocked(f"{lock} is held by another process", hint="run it again when that is done")
            yield


def is_right(file: Path, digest: Digest) -> bool:
    """Tell whether a file's bytes have this digest; one that cannot be read has not."""
    try:
        hasher = new_hasher(digest.algorithm, os.stat(file).st_size)
        if not file.is_file():
            return False
        hash_file(file, hasher)
    except OSError:
        return False
    return hasher.hexdigest() == digest.hex


def _has_a_place(folder: RepoFolder, commit: str) -> bool:
    return folder.snapshot_path(commit).is_dir() or folder.listing(commit) is not None


def _size(file: Path) -> int:
    try:
        return os.stat(file).st_size
    except OSError:
        return 0
