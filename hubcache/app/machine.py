"""The doctor's checks of the machine: interpreter, disk, cache; those of settings and network are in doctor.py."""

from __future__ import annotations

import os
import platform
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from hubcache import __version__
from hubcache.app.settings import Settings
from hubcache.cache.scan import scan
from hubcache.cache.store import RESERVE
from hubcache.errors import HubcacheError
from hubcache.localfile import free_space

OLDEST_PYTHON = (3, 11)
LITTLE_SPACE = 5 * 10**9

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and, where it is not ok, what to do about it."""

    name: str
    status: Status
    message: str
    cure: str = ""


def check_python(running: tuple[int, ...]) -> Check:
    """Check the interpreter's version."""
    text, oldest = (".".join(map(str, numbers)) for numbers in (running, OLDEST_PYTHON))
    if running < OLDEST_PYTHON:
        return Check("python", "problem", f"{text} is too old", f"install Python {oldest} or newer")
    return Check("python", "ok", platform.python_version())


def check_versions() -> Check:
    """Tell the versions of hubcache and of what loads from the cache; none of them is imported."""
    found = [f"hubcache {__version__}"]
    for name in ("huggingface_hub", "transformers", "torch"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return Check("versions", "ok", ", ".join(found))


def check_cache_folder(settings: Settings) -> list[Check]:
    """Try to write, to link and to lock where the cache is, or will be; what is tried out is removed."""
    root = settings.hub_cache
    place = root
    while not os.path.lexists(place):
        place = place.parent
    # In the root itself, huggingface_hub minds strange names; in its folder of locks it does not.
    locks = root / ".locks"
    try:
        with tempfile.TemporaryDirectory(prefix="doctor-", dir=locks if locks.is_dir() else place) as scratch:
            message = f"{root}" if place == root else f"{root}, which the first pull makes"
            return [
                Check("cache folder", "ok", message),
                check_links(settings, Path(scratch)),
                check_locks(Path(scratch)),
            ]
    except OSError as error:
        cure = "make it writable for you, or choose another with HF_HUB_CACHE"
        return [Check("cache folder", "problem", f"{root} cannot be written: {error.strerror}", cure)]


def check_links(settings: Settings, scratch: Path) -> Check:
    """Try out a relative symlink in a folder of the cache's disk."""
    costs = "every commit keeps copies of its own"
    if settings.symlinks is False:
        message = f"switched off by HF_HUB_DISABLE_SYMLINKS: {costs}"
        return Check("symlinks", "warning", message, "unset HF_HUB_DISABLE_SYMLINKS")
    try:
        os.symlink("target", scratch / "link")
    except (OSError, NotImplementedError):
        cure = "choose another disk with HF_HUB_CACHE"
        return Check("symlinks", "warning", f"this disk keeps none: {costs}", cure)
    return Check("symlinks", "ok", "work")


def check_locks(scratch: Path) -> Check:
    """Try out a lock in a folder of the cache's disk."""
    from filelock import FileLock

    try:
        with FileLock(scratch / "lock", timeout=1):
            return Check("locks", "ok", "work")
    except (OSError, NotImplementedError) as error:
        message = f"do not work on this disk ({error}): two pulls at once may fetch the same file twice"
        return Check("locks", "warning", message, "choose another disk with HF_HUB_CACHE")


def check_space(settings: Settings) -> Check:
    """Check the free space of the cache's disk."""
    free = free_space(settings.hub_cache)
    message, cure = f"{_size(free)} free", "free some, or choose another disk with HF_HUB_CACHE"
    if free > LITTLE_SPACE:
        return Check("disk space", "ok", message)
    return Check("disk space", "warning" if free > RESERVE else "problem", message, cure)


def check_repos(settings: Settings) -> list[Check]:
    """Look through the cached repos for damage that shows at first sight, and for unfinished files."""
    try:
        found = list(scan(settings.hub_cache))
    except HubcacheError as error:
        return [Check("repos", "problem", error.message, error.hint)]
    damaged = [one for one in found if one.problem]
    message = f"{len(found)} cached, {_size(sum(one.size for one in found))}"
    repos = Check("repos", "ok", message)
    if damaged:
        message += f"; {len(damaged)} damaged, the first is {damaged[0].repo}: {damaged[0].problem}"
        repos = Check("repos", "warning", message, "hubcache verify")
    partial = [one for one in found if one.partial_files]
    if not partial:
        return [repos, Check("unfinished files", "ok", "none")]
    count, size = sum(one.partial_files for one in partial), sum(one.partial_size for one in partial)
    message = f"{count}, {_size(size)}, of {len(partial)} repos: the next pull of such a repo goes on with them"
    return [repos, Check("unfinished files", "warning", message, f"hubcache pull {partial[0].repo}")]


def _size(size: int) -> str:
    return f"{size / 10**9:.1f} GB" if size >= 10**8 else f"{size / 10**6:.1f} MB"
