"""Empty folders taken away again, where a pull failed before it brought anything."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hubcache.cache.folder import RepoFolder


def remove_if_empty(folder: RepoFolder) -> None:
    """Remove the repo's folders as far as they are empty; whatever holds a file stays.

    A pull in another process makes the folders again when it needs them.
    """
    inner = (".staging/*", ".staging", "blobs", "refs", "snapshots")
    for path in [found for pattern in inner for found in folder.path.glob(pattern)] + [folder.path]:
        _remove_folder(path)


def _remove_folder(path: Path) -> None:
    with suppress(OSError):
        path.rmdir()
