"""What has been computed of the cache's files, remembered in SQLite beside it: fast, never the truth.

A file is known by its path, size, time of change and inode: one that was touched is hashed again.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from hubcache.core.digests import Digest
from hubcache.core.gitobj import ContentDigests
from hubcache.localfile import digest_file

_MIGRATIONS = (
    """
    CREATE TABLE hashes (
        path TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL, inode INTEGER NOT NULL,
        git_sha1 TEXT, sha256 TEXT, at INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE summaries (
        root TEXT NOT NULL, folder TEXT NOT NULL, state TEXT NOT NULL, facts TEXT NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (root, folder)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE uses (
        root TEXT NOT NULL, folder TEXT NOT NULL, hits INTEGER NOT NULL, last INTEGER NOT NULL,
        PRIMARY KEY (root, folder)
    ) WITHOUT ROWID;
    """,
)
"""What each version adds to the one before it; an older file is brought up to date, a newer one is left alone."""
VERSION = len(_MIGRATIONS)


LOCKED = 0.2
"""Seconds after which an index that cannot be opened is tried again."""


class _Newer(Exception):
    """The file is a later hubcache's."""


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells whether a file is the one that was hashed: bytes, time of change in ns, inode."""

    size: int
    changed: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        """Take it from a stat."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


class Index:
    """The index at `path`, or one in memory where the path is None or cannot be used; safe between threads."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        self._connection = _open(path)

    def hex_of(self, path: Path, algorithm: str, state: FileState) -> str | None:
        """Recall the digest of a file in this state; None where it was never computed."""
        row = self._row(path)
        if row is None or row[:3] != (state.size, state.changed, state.inode):
            return None
        return str(found) if (found := row[3 if algorithm == "git-sha1" else 4]) else None

    def remember(self, path: Path, state: FileState, *, git_sha1: str = "", sha256: str = "") -> None:
        """Note the digests of a file in this state."""
        row = (str(path), state.size, state.changed, state.inode, git_sha1, sha256, int(time.time()))
        with self._lock, suppress(sqlite3.Error, UnicodeError):  # a fact lost is computed again
            self._connection.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def remember_hashes(self, rows: Iterable[tuple[str, FileState, str, str]]) -> None:
        """Note many files at once, at a tenth of the time: path, state, git-sha1, sha256."""
        now = int(time.time())
        found = [(path, state.size, state.changed, state.inode, *digests, now) for path, state, *digests in rows]
        with self._lock, suppress(sqlite3.Error, UnicodeError), self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?, ?)", found)

    def proven_at(self, path: Path, digest: Digest, state: FileState) -> int:
        """Return when a file in this state was hashed last, and had this digest, in unix seconds; 0 for never."""
        row = self._row(path)
        if row is None or row[:3] != (state.size, state.changed, state.inode):
            return 0
        return int(str(row[5])) if row[3 if digest.algorithm == "git-sha1" else 4] == digest.hex else 0

    def digests(self, path: Path, compute: Callable[[Path], ContentDigests] = digest_file) -> ContentDigests:
        """Return both digests of a file, computed once for each state it is in.

        Raises:
            IntegrityError: it changed while it was read.
            OSError: it cannot be read.
        """
        state = FileState.of(os.stat(path))
        row = self._row(path)
        if row is not None and row[:3] == (state.size, state.changed, state.inode) and row[3] and row[4]:
            return ContentDigests(state.size, str(row[3]), str(row[4]))
        found = compute(path)
        if FileState.of(os.stat(path)) == state:
            self.remember(path, state, git_sha1=found.git_sha1, sha256=found.sha256)
        return found

    def summaries(self, root: Path) -> dict[str, tuple[str, str, int]]:
        """Recall what was noted of the repos of one cache: folder name to state, facts and when (unix seconds)."""
        question = "SELECT folder, state, facts, at FROM summaries WHERE root = ?"
        with self._lock, suppress(sqlite3.Error, UnicodeError):
            rows = self._connection.execute(question, (str(root),)).fetchall()
            return {str(folder): (str(state), str(facts), int(at)) for folder, state, facts, at in rows}
        return {}

    def remember_summaries(self, root: Path, rows: Mapping[str, tuple[str, str]], gone: Iterable[str]) -> None:
        """Note the state and facts of some repos, and forget those that are gone."""
        now = int(time.time())
        with self._lock, suppress(sqlite3.Error, UnicodeError), self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany(
                "INSERT OR REPLACE INTO summaries VALUES (?, ?, ?, ?, ?)",
                [(str(root), folder, state, facts, now) for folder, (state, facts) in rows.items()],
            )
            self._connection.executemany(
                "DELETE FROM summaries WHERE root = ? AND folder = ?", [(str(root), folder) for folder in gone]
            )

    def uses(self, root: Path) -> dict[str, tuple[int, int]]:
        """Recall how often files of each repo were served, and when last (unix seconds), by folder name."""
        with self._lock, suppress(sqlite3.Error, UnicodeError):
            rows = self._connection.execute(
                "SELECT folder, hits, last FROM uses WHERE root = ?", (str(root),)
            ).fetchall()
            return {str(folder): (int(hits), int(last)) for folder, hits, last in rows}
        return {}

    def note_uses(self, root: Path, hits: Mapping[str, int], *, at: int) -> None:
        """Add to how often repos were served, by folder name."""
        with self._lock, suppress(sqlite3.Error, UnicodeError), self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany(
                "INSERT INTO uses VALUES (?, ?, ?, ?) ON CONFLICT (root, folder)"
                " DO UPDATE SET hits = hits + excluded.hits, last = max(last, excluded.last)",
                [(str(root), folder, count, at) for folder, count in hits.items()],
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _row(self, path: Path) -> tuple[object, ...] | None:
        question = "SELECT size, changed, inode, git_sha1, sha256, at FROM hashes WHERE path = ?"
        with self._lock:
            try:
                row: tuple[object, ...] | None = self._connection.execute(question, (str(path),)).fetchone()
            except (sqlite3.Error, UnicodeError):
                return None
        return row


def _open(path: Path | None) -> sqlite3.Connection:
    """Open the index, made anew where it is damaged; in memory where there is no writing, or a newer version's."""
    if path is not None:
        for attempt in range(2):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                return _connect(str(path))
            except _Newer:
                break
            except (sqlite3.OperationalError, OSError):  # locked by another process, or not to be written
                time.sleep(LOCKED if attempt == 0 else 0)
            except sqlite3.Error:
                with suppress(OSError):
                    path.unlink()
    return _connect(":memory:")


def _connect(name: str) -> sqlite3.Connection:
    connection = sqlite3.connect(name, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        with closing(connection.cursor()) as cursor:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=NORMAL")
            if _version(cursor) != VERSION:
                _migrate(cursor)
    except BaseException:
        connection.close()
        raise
    return connection


def _version(cursor: sqlite3.Cursor) -> int:
    return int(cursor.execute("PRAGMA user_version").fetchone()[0])


def _migrate(cursor: sqlite3.Cursor) -> None:
    """Bring the file to this version; another process may be about to do the same."""
    cursor.execute("BEGIN IMMEDIATE")
    found = _version(cursor)
    if found > VERSION:
        raise _Newer
    for migration in _MIGRATIONS[found:]:
        cursor.execute(migration)
    cursor.execute(f"PRAGMA user_version={VERSION}")
    cursor.execute("COMMIT")
