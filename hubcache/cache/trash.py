"""What a removal took, kept for a day in `.locks`, where huggingface_hub minds no strange folder, to be put back.

A bin `hubcache-trash/<time>-<8 hex>` has `manifest.json`, written before anything is moved, and below `files` all that
was moved, at the path it had in the cache's root. What goes is the caller's to decide, undo.py puts it back.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubcache.cache.shared import REFS, payload_path
from hubcache.core.inventory import TrashBin
from hubcache.localfile import disk_error, write_atomically

FOLDER = ".locks/hubcache-trash"
MANIFEST = "manifest.json"
_DONE = ".gone"


@dataclass(frozen=True, slots=True)
class Bin:
    """One removal: its units in the order in which they were to be moved, and when the folders around them changed."""

    root: Path
    name: str
    units: tuple[str, ...]
    at: float = 0.0
    what: str = ""
    times: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The bin's folder."""
        return self.root / FOLDER / self.name

    def place(self, unit: str) -> Path:
        """Return where a unit lies in the bin."""
        return self.path / "files" / unit

    def has(self, unit: str) -> bool:
        """Tell whether a unit lies in the bin."""
        return os.path.lexists(self.place(unit))


def new_bin(root: Path, units: Iterable[str], *, what: str) -> Bin:
    """Make a bin for the units, which are still where they are.

    Raises:
        DiskFull, CacheError: it cannot be written.
    """
    now = time.time()
    name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}-{secrets.token_hex(4)}"
    made = Bin(root, name, tuple(units), now, what, _times(root, units))
    told = {"format_version": 1, "at": now, "what": what, "units": list(made.units), "times": dict(made.times)}
    try:
        (root / ".locks").mkdir(exist_ok=True)
        made.path.mkdir(parents=True)
    except OSError as error:
        raise disk_error(error, made.path) from error
    write_atomically(made.path / MANIFEST, json.dumps(told).encode(), scratch=made.path)
    return made


def _times(root: Path, units: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Note the times of all folders that lose something."""
    found = {}
    for unit in units:
        folder = unit.rpartition("/")[0]
        while folder and folder not in found:
            with suppress(OSError):
                status = os.lstat(root / folder)
                found[folder] = (status.st_atime_ns, status.st_mtime_ns)
            folder = folder.rpartition("/")[0]
    return found


def throw(into: Bin, unit: str) -> bool:
    """Move a unit into the bin; False where it is not there.

    Raises:
        DiskFull, CacheError: it cannot be moved.
    """
    source, target = into.root / unit, into.place(unit)
    try:
        if not os.path.lexists(source):
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
    except OSError as error:
        raise disk_error(error, source) from error
    _remove_empty(into.root, unit)
    return True


def _remove_empty(root: Path, unit: str) -> None:
    """Remove the folders that a unit leaves empty, below the repo's own."""
    parts = unit.split("/")[:-1]
    while len(parts) > 2 or (len(parts) == 2 and parts[1] not in {"refs", "snapshots", "blobs"}):
        is_snapshot = len(parts) == 3 and parts[1] == "snapshots"
        if is_snapshot or parts[0] == "blobs":
            return
        try:
            os.rmdir(root.joinpath(*parts))
        except OSError:
            return
        parts.pop()


def bins(root: Path) -> list[Bin]:
    """List the bins, oldest first; one whose manifest cannot be read has no units, and can only be emptied."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError):
        found = [_read(root, name) for name in os.listdir(root / FOLDER) if not name.endswith(_DONE)]
    return sorted(found, key=lambda each: (each.at, each.name))


def _read(root: Path, name: str) -> Bin:
    try:
        told: Any = json.loads((root / FOLDER / name / MANIFEST).read_bytes())
        times = {str(path): (int(each[0]), int(each[1])) for path, each in told["times"].items()}
        return Bin(root, name, tuple(map(_checked, told["units"])), float(told["at"]), str(told["what"]), times)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        with suppress(OSError):
            return Bin(root, name, (), os.lstat(root / FOLDER / name).st_mtime)
        return Bin(root, name, ())


def _checked(unit: Any) -> str:
    text = str(unit)
    if not text or text.startswith("/") or not {".", "..", ""}.isdisjoint(text.split("/")):
        raise ValueError(f"no path in a cache: {text[:80]!r}")
    return text


def remains(root: Path) -> list[TrashBin]:
    """List what an interrupted emptying left."""
    with suppress(FileNotFoundError, NotADirectoryError):
        names = sorted(os.listdir(root / FOLDER))
        return [TrashBin(name, tree_size(root / FOLDER / name), 0.0) for name in names if name.endswith(_DONE)]
    return []


def bin_facts(each: Bin) -> TrashBin:
    """Tell what a bin holds."""
    return TrashBin(each.name, tree_size(each.path), each.at, each.what)


def tree_size(folder: Path) -> int:
    """Return the bytes of all files below a folder, or of a file; links count nothing."""
    if not folder.is_dir() or folder.is_symlink():
        return _size(str(folder))
    return sum(_size(os.path.join(top, name)) for top, _, names in os.walk(folder) for name in names)


def _size(path: str) -> int:
    with suppress(OSError):
        return 0 if os.path.islink(path) else os.lstat(path).st_size
    return 0


def empty(root: Path, name: str) -> None:
    """Delete a bin for good; what a crash leaves of it goes the next time.

    Raises:
        CacheError: it cannot be deleted.
    """
    folder = root / FOLDER / name
    try:
        if folder.is_dir() and not name.endswith(_DONE):
            folder = folder.rename(folder.with_name(name + _DONE))
        if folder.is_dir():
            shutil.rmtree(folder)
        with suppress(OSError):
            folder.parent.rmdir()
    except OSError as error:
        raise disk_error(error, folder) from error


def empty_remains(root: Path) -> None:
    """Delete what an interrupted emptying left, and bins that never took anything."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(root / FOLDER):
            if name.endswith(_DONE) or not (root / FOLDER / name / "files").exists():
                empty(root, name)


def payload_units(payloads: Iterable[str]) -> list[str]:
    """List the paths that go with payloads of the shared store when nobody uses them."""
    return [path for name in payloads for path in (payload_path(name) + REFS, payload_path(name))]
