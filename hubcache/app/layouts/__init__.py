"""Recognises, by looking, what other tools keep on a disk; each layout's reader is a module of this folder.

Nothing is hashed and nothing is written. Links are followed only within the folder they stand in.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from hubcache.app.layouts.clones import find_clone
from hubcache.app.layouts.folders import (
    find_folder,
    find_local_dir,
    find_scope_folder,
    find_scope_snapshots,
    find_sentence_folder,
    find_zoo_folder,
)
from hubcache.app.layouts.seeing import Seeing
from hubcache.app.layouts.stores import find_hub_cache, find_ollama
from hubcache.core.adoptable import Found, Left

DEEPEST = 8
MOST_FOLDERS = 20_000

Finder = Callable[[Path, Seeing], list[Found] | None]

FINDERS: tuple[Finder, ...] = (
    find_hub_cache,
    find_ollama,
    find_scope_snapshots,
    find_clone,
    find_local_dir,
    find_scope_folder,
    find_zoo_folder,
    find_sentence_folder,
    find_folder,
)
"""The first that recognises a folder has it; None is its word that it does not."""


def recognise(top: Path, seeing: Seeing) -> Iterator[Found | Left]:
    """Find every repo at a path or below it, nearest first; what is none and holds none is told as left."""
    waiting = [(top, 0)]
    found_any, looked = False, 0
    while waiting:
        folder, depth = waiting.pop(0)
        looked += 1
        if looked > MOST_FOLDERS:
            yield Left(str(top), f"more than {MOST_FOLDERS} folders: name the ones that hold models")
            return
        if os.path.realpath(folder) == seeing.own_cache:
            continue
        found = next((found for finder in FINDERS if (found := finder(folder, seeing)) is not None), None)
        if found is not None:
            found_any = True
            yield from found
        elif depth < DEEPEST:
            waiting += [(below, depth + 1) for below in _below(folder)]
    if not found_any:
        yield Left(str(top), _why(top))


def _below(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def _why(top: Path) -> str:
    try:
        status = top.lstat()
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    if stat.S_ISLNK(status.st_mode):
        return "a link, which is not followed"
    return "no layout that is known here" if stat.S_ISDIR(status.st_mode) else "no folder"
