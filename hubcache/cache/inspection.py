"""Looks through a repo's folder for all that can be judged without hashing, and lists what is to be hashed.

A damaged folder is the usual case here: whatever cannot be read is a finding, and the rest is still looked at.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from hubcache.cache.findings import Findings, Kind
from hubcache.cache.folder import RepoFolder
from hubcache.cache.links import follow
from hubcache.cache.permissions import check_permissions
from hubcache.cache.quarantine import read_missed
from hubcache.cache.scan import held_refs, is_folder, is_temporary, partial_size, walk
from hubcache.core.artifact import is_commit
from hubcache.core.digests import Blob, Digest
from hubcache.core.layout import decode_tree
from hubcache.errors import BadReference, IntegrityError

# What systems drop into any folder, and no client loads.
DROPPED = {".DS_Store", "Thumbs.db", "desktop.ini", "__pycache__"}


@dataclass(slots=True)
class Use:
    """What wants some bytes: listings (size: commit), and files in snapshots (commit, path)."""

    listed: dict[int, str] = field(default_factory=dict)
    files: list[tuple[str, str]] = field(default_factory=list)

    @property
    def commit(self) -> str:
        """A commit that needs them, "" for none."""
        return next((commit for commit, _ in self.files), "") or next(iter(self.listed.values()), "")


@dataclass(frozen=True, slots=True)
class Claim:
    """A file whose bytes should have a digest; `path` is relative to the repo's folder, `file` is where it stands."""

    path: str
    file: str
    digest: Digest
    use: Use


class Inspection:
    """One repo, or one commit of it with what it needs."""

    def __init__(self, folder: RepoFolder, commit: str | None) -> None:
        self.findings = Findings(folder.repo)
        self._add = self.findings.add
        self._folder = folder
        self._top = str(folder.path)
        self._root = str(folder.root)
        self._only = commit
        self._listings: dict[str, dict[str, Blob]] = {}
        self._faults: dict[str, tuple[Kind, str] | None] = {}  # what is wrong with each blob
        self._uses: dict[str, Use] = {}
        self._files: list[Claim] = []

    def inspect(self) -> list[Claim]:
        """Look through the folder, and return what is to be hashed."""
        self._read_listings()
        self._read_blobs()
        for entry in self._entries("snapshots"):
            if self._only in (None, entry.name):
                self._read_snapshot(entry)
        self._read_missed()
        if self._only is None:
            self._read_refs()
            check_permissions(self._folder, self.findings)
        return [*self._blob_claims(), *self._files]

    def _entries(self, name: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(f"{self._top}/{name}") as entries:
                return list(entries)
        except FileNotFoundError:
            return []
        except OSError as error:
            self._add(name, "unreadable", f"cannot be listed: {error.strerror}")
            return []

    def _use(self, digest: str) -> Use:
        return self._uses.setdefault(digest, Use())

    def _read_listings(self) -> None:
        for entry in self._entries("trees"):
            path, commit = f"trees/{entry.name}", entry.name.removesuffix(".json")
            if self._only not in (None, commit):
                continue
            if is_temporary(entry.name):
                self._add(path, "leftover", "an interrupted write left it")
                continue
            try:
                if not is_commit(commit) or commit == entry.name:
                    raise IntegrityError("its name is no commit's")
                with open(entry.path, "rb") as file:
                    listing = decode_tree(file.read()).files
            except OSError as error:
                self._add(path, "unreadable", f"cannot be read: {error.strerror}", commit)
            except IntegrityError as error:
                self._add(path, "bad-listing", error.message, commit if is_commit(commit) else "")
            else:
                self._listings[commit] = {str(name): listed.blob for name, listed in listing.items()}
                for listed in listing.values():
                    self._use(listed.blob.digest.hex).listed.setdefault(listed.blob.size, commit)

    def _read_blobs(self) -> None:
        for entry in self._entries("blobs"):
            try:
                if not is_temporary(entry.name):
                    self._faults[entry.name] = _blob_fault(entry, repo=self._top, root=self._root)
                elif self._only is None:
                    size = partial_size(entry.stat(follow_symlinks=False))
                    self._add(f"blobs/{entry.name}", "leftover", f"{size} bytes of an interrupted download")
            except FileNotFoundError:
                continue  # finished meanwhile: a pull is at work
            except OSError as error:
                self._faults[entry.name] = "unreadable", f"cannot be read: {error.strerror}"

    def _blob_claims(self) -> list[Claim]:
        claims = []
        for name, fault in self._faults.items():
            if self._only is not None and name not in self._uses:
                continue
            use = self._uses.get(name, Use())
            if fault is not None:
                self._add(f"blobs/{name}", *fault, use.commit)
            else:
                claims.append(Claim(f"blobs/{name}", f"{self._top}/blobs/{name}", Digest.parse(name), use))
        return claims

    def _read_missed(self) -> None:
        """Tell what was set aside and is missed still: it is no file that was never pulled."""
        missed = {link for each in read_missed(self._folder) for link in each.links}
        for commit, path in sorted(missed):
            snapshot = f"{self._top}/snapshots/{commit}"
            if self._only in (None, commit) and os.path.isdir(snapshot) and not os.path.lexists(f"{snapshot}/{path}"):
                message = "was damaged, is in quarantine, and has not come again"
                self._add(f"snapshots/{commit}/{path}", "quarantined", message, commit)

    def _read_refs(self) -> None:
        def tell(message: str) -> None:
            self._add("refs", "unreadable", message)

        top = f"{self._top}/refs"
        for name, held in held_refs(top, tell).items() if os.path.lexists(top) else ():
            text = held.decode("ascii", "replace")
            if not is_commit(text):
                what = "more than the 40 hex digits" if is_commit(text.strip()) else "no commit"
                self._add(f"refs/{name}", "bad-ref", f"holds {what}: {text[:50]!r}")
            elif not is_folder(f"{self._top}/snapshots/{text}"):
                self._add(f"refs/{name}", "dangling-ref", f"means {text[:12]}, which has no snapshot")

    def _read_snapshot(self, snapshot: os.DirEntry[str]) -> None:
        commit, top = snapshot.name, f"snapshots/{snapshot.name}"
        if not snapshot.is_dir(follow_symlinks=False):
            self._add(top, "foreign-name", "is no folder of a commit's files")
            return
        listing = self._listings.get(commit)
        present, unknown = set(), 0
        for path, entry in walk(snapshot.path, lambda message: self._add(top, "unreadable", message, commit)):
            present.add(path)
            listed = listing.get(path) if listing is not None else None
            if listing is not None and listed is None:
                is_dropped = not DROPPED.isdisjoint(path.split("/"))
                self._add(f"{top}/{path}", "dropped" if is_dropped else "unlisted", "is no file of the commit", commit)
            check = self._check_link if entry.is_symlink() else self._check_file
            is_known = check(entry, commit, path, listed)
            unknown += listing is None and not is_known
        if unknown:
            self._add(top, "unverifiable", f"no listing says what {unknown} of its files should be", commit)
        missing = [blob.size for path, blob in (listing or {}).items() if path not in present]
        if missing:
            message = f"{len(missing)} of {len(listing or {})} files ({sum(missing)} bytes) are not here"
            self._add(top, "partial", message, commit)

    def _check_link(self, entry: os.DirEntry[str], commit: str, path: str, listed: Blob | None) -> bool:
        """Check a snapshot's link; tell whether something says what its bytes should be."""
        shown = f"snapshots/{commit}/{path}"
        lead = follow(entry.path, repo=self._top, root=self._root)
        if lead.place == "outside":
            self._add(shown, "escaping-link", f"leads out of the repo, to {lead.end}", commit)
        elif lead.place != "blob":
            return self._check_file(entry, commit, path, listed)
        elif lead.end not in self._faults and not os.path.lexists(f"{self._top}/blobs/{lead.end}"):
            self._add(shown, "dangling-link", f"leads to {lead.end[:12]}, which is no blob here", commit)
        else:
            self._use(lead.end).files.append((commit, path))
            if listed is not None and listed.digest.hex != lead.end:
                message = f"leads to {lead.end[:12]} where {listed.digest.hex[:12]} is listed"
                self._add(shown, "wrong-link", message, commit)
        return True

    def _check_file(self, entry: os.DirEntry[str], commit: str, path: str, listed: Blob | None) -> bool:
        """Check a file that is no link to a blob; tell whether something says what its bytes should be."""
        shown = f"snapshots/{commit}/{path}"
        if not os.path.isfile(entry.path):
            kind: Kind = "dangling-link" if entry.is_symlink() else "foreign-name"
            self._add(shown, kind, "leads nowhere" if entry.is_symlink() else "is neither file nor link", commit)
            return True
        if listed is not None:
            use = Use({listed.size: commit}, [(commit, path)])
            self._files.append(Claim(shown, entry.path, listed.digest, use))
        return listed is not None


def _blob_fault(entry: os.DirEntry[str], *, repo: str, root: str) -> tuple[Kind, str] | None:
    """Say what is wrong with a blob before its bytes are looked at."""
    try:
        Digest.parse(entry.name)
    except BadReference:
        return "foreign-name", "its name is no git-sha1 or sha256"
    if entry.is_symlink():
        lead = follow(entry.path, repo=repo, root=root)
        if lead.place == "outside":
            return "escaping-link", f"leads out of the repo, to {lead.end}"
        if not entry.is_file():
            return "dangling-link", "leads nowhere"
    return None if entry.is_file() else ("foreign-name", "is no file")
