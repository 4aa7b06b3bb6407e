"""Puts the last removal back where it stood, exactly, unless something new stands there; trash.py keeps the bins."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hubcache.cache.shared import REFS, add_user, payload_in
from hubcache.cache.trash import Bin, bins, empty, tree_size
from hubcache.errors import CacheError, NotFound
from hubcache.localfile import disk_error


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back: its bin, how many paths, and their bytes."""

    name: str
    paths: int
    size: int


def undo(root: Path) -> Restored:
    """Put the last removal back, the reverse way: blobs first, refs last. Blobs that came again are left as they are.

    Raises:
        NotFound: there is none.
        CacheError: something else stands where something stood, or what it needs is gone; nothing was moved then.
    """
    last = next((each for each in reversed(bins(root)) if any(map(each.has, each.units))), None)
    if last is None:
        raise NotFound(f"there is no removal in {root} that can be undone", hint="what goes is kept for a day")
    units = [unit for unit in reversed(last.units) if last.has(unit)]
    conflicts = [unit for unit in units if os.path.lexists(root / unit) and not _is_same(last, unit)]
    if conflicts:
        what = ", ".join(conflicts[:3]) + (f" and {len(conflicts) - 3} more" if len(conflicts) > 3 else "")
        raise CacheError(
            f"something new stands at {what} in {root}", hint="remove that first, or leave both as they are"
        )
    if missing := _missing(last, units):
        raise CacheError(f"{missing} is gone, and what was removed needs it", hint="pull it again instead")
    size = tree_size(last.path / "files")
    for unit in units:
        _put_back(last, unit)
    for folder in sorted(last.times, key=len, reverse=True):
        with suppress(OSError):
            os.utime(root / folder, ns=last.times[folder])
    empty(root, last.name)
    return Restored(last.name, len(units), size)


def _put_back(last: Bin, unit: str) -> None:
    target = last.root / unit
    try:
        for blob, payload in _store_links(last, unit):
            add_user(last.root, payload, blob)
        if not os.path.lexists(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(last.place(unit), target)
    except OSError as error:
        raise disk_error(error, target) from error


def _store_links(last: Bin, unit: str) -> list[tuple[str, str]]:
    """Pair the blobs of a unit that lead into the shared store with their payloads."""
    parts = unit.split("/")
    blobs = [unit] if len(parts) == 3 and parts[1] == "blobs" else []
    if len(parts) == 1:
        with suppress(OSError):
            blobs = [f"{unit}/blobs/{name}" for name in os.listdir(last.place(unit) / "blobs")]
    found = []
    for blob in blobs:
        with suppress(OSError):
            target = os.readlink(last.place(blob))
            if name := payload_in(target, os.path.dirname(f"{last.root}/{blob}"), str(last.root)):
                found.append((blob, name))
    return found


def _is_same(last: Bin, unit: str) -> bool:
    """Tell whether what stands there again may stand for what was removed."""
    parts = unit.split("/")
    if parts[0] == "blobs" and unit.endswith(REFS):
        return True  # it has the users of now, and ours are added
    return _same(str(last.place(unit)), str(last.root / unit))


def _same(one: str, other: str) -> bool:
    if os.path.islink(one) or os.path.islink(other):
        return os.path.islink(one) and os.path.islink(other) and os.readlink(one) == os.readlink(other)
    if os.path.isdir(one) or os.path.isdir(other):
        try:
            names = os.listdir(one)
            return sorted(names) == sorted(os.listdir(other)) and all(
                _same(os.path.join(one, name), os.path.join(other, name)) for name in names
            )
        except OSError:
            return False
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _missing(last: Bin, units: list[str]) -> str:
    """Name what a link or ref in the bin needs and that is neither in its place nor in the bin; "" for nothing."""
    for needed in (path for unit in units for path in _needs(last, unit)):
        if not needed.startswith("..") and not os.path.lexists(last.root / needed) and not last.has(needed):
            return needed
    return ""


def _needs(last: Bin, unit: str) -> Iterable[str]:
    repo, _, rest = unit.partition("/")
    if rest.startswith("refs/"):
        with suppress(OSError):
            yield f"{repo}/snapshots/{last.place(unit).read_text(encoding='ascii', errors='replace').strip()}"
    for link in _links(last, unit):
        target = os.path.join(os.path.dirname(link), os.readlink(last.place(link)))
        yield os.path.normpath(target)


def _links(last: Bin, unit: str) -> Iterable[str]:
    """List the links of a unit, by their paths in the root."""
    top = last.place(unit)
    if top.is_symlink():
        yield unit
        return
    files = str(last.path / "files")
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                yield os.path.relpath(path, files)
