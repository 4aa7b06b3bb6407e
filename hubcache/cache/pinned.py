"""Which revisions of a repo their owner wants kept, written in the repo's own folder: it outlives any index."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hubcache.cache.folder import RepoFolder
from hubcache.localfile import disk_error, write_atomically

FILE = "pins.json"
ALL = "*"
"""The pin that keeps the whole repo, whatever its refs come to mean."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """One pin: a ref, a commit or ALL, since when (unix seconds), and why."""

    revision: str
    at: int
    why: str = ""


def read_pins(folder: RepoFolder) -> Mapping[str, Pinned]:
    """Read a repo's pins by revision; a file that cannot be read pins everything, for nothing else is safe."""
    try:
        content: Any = json.loads(folder.path.joinpath(FILE).read_bytes())
        return {
            str(name): Pinned(str(name), int(row.get("at", 0)), str(row.get("why", "")))
            for name, row in content["pins"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {ALL: Pinned(ALL, 0, f"{FILE} cannot be read")}


def pin(folder: RepoFolder, revision: str, *, why: str = "") -> None:
    """Keep a revision from now on.

    Raises:
        DiskFull, CacheError: it cannot be written down.
    """
    _write(folder, {**read_pins(folder), revision: Pinned(revision, int(time.time()), why)})


def unpin(folder: RepoFolder, revision: str) -> bool:
    """Keep a revision no longer; tell whether it was pinned."""
    pins = dict(read_pins(folder))
    if pins.pop(revision, None) is None:
        return False
    if pins:
        _write(folder, pins)
    else:
        _remove(folder)
    return True


def _remove(folder: RepoFolder) -> None:
    path = folder.path / FILE
    try:
        path.unlink()
    except OSError as error:
        raise disk_error(error, path) from error


def _write(folder: RepoFolder, pins: Mapping[str, Pinned]) -> None:
    rows = {name: {"at": each.at, "why": each.why} for name, each in sorted(pins.items())}
    content = json.dumps({"format_version": 1, "pins": rows}, indent=1).encode()
    write_atomically(folder.path / FILE, content, scratch=folder.path)
