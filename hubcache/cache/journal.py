"""What was done to the cache, a line of JSON each, in the state folder: for people to read, never for decisions."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST = 4 << 20
"""Bytes from which on the older half is dropped."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that was done.

    Attributes:
        at: unix seconds.
        what: pull, convert, adopt, verify, repair, quarantine, remove, gc, undo, pin or unpin.
        repo: the repo as `str(RepoId)` writes it, "" for the whole cache.
        commit: the commit, or "".
        size: bytes that came or went.
        note: what else is worth telling, in a few words.
        root: the cache's folder.
    """

    at: int
    what: str
    repo: str = ""
    commit: str = ""
    size: int = 0
    note: str = ""
    root: str = ""


class Journal:
    """The journal at `path`; with None, nothing is written and nothing was done."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def add(self, what: str, *, root: Path, repo: str = "", commit: str = "", size: int = 0, note: str = "") -> None:
        """Note what was done; that it could not be noted undoes nothing."""
        if self._path is None:
            return
        event = {"at": int(time.time()), "what": what, "repo": repo, "commit": commit, "size": size, "note": note}
        line = json.dumps({key: value for key, value in event.items() if value} | {"root": str(root)}) + "\n"
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(line.encode())
                file.flush()
                if os.fstat(file.fileno()).st_size > LARGEST:
                    self._halve()

    def events(self) -> Iterator[Event]:
        """Read what was noted, oldest first; lines that cannot be read are left out."""
        if self._path is None:
            return
        with suppress(OSError), self._path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if (event := _read(line)) is not None:
                    yield event

    def _halve(self) -> None:
        """Drop the older half, in place: another process may have the file open to add to it."""
        assert self._path is not None
        kept = self._path.read_bytes()[-LARGEST // 2 :].partition(b"\n")[2]
        with self._path.open("r+b") as file:
            file.write(kept)
            file.truncate()


def _read(line: str) -> Event | None:
    try:
        told: Any = json.loads(line)
        return Event(
            int(told["at"]), str(told["what"]), str(told.get("repo", "")), str(told.get("commit", "")),
            int(told.get("size", 0)), str(told.get("note", "")), str(told.get("root", "")),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
