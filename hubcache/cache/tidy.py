"""Empty folders taken away again, where a pull failed before it brought anything."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from hubcache.cache.folder import RepoFolder


def remove_if_empty(folder: RepoFolder) -> None:
    """Remove the repo's folders if all of them are empty; a folder that holds any file stays as it is.

    `snapshots` goes last and only with the rest: without it, huggingface_hub takes what is left for corrupt.
    A pull in another process makes the folders again when it needs them.
    """
    if any(names for _, _, names in os.walk(folder.path)):
        return
    inner = (".staging/*", ".staging", "blobs", "refs", "snapshots")
    for path in [found for pattern in inner for found in folder.path.glob(pattern)] + [folder.path]:
        if not _remove_folder(path):
            return


def _remove_folder(path: Path) -> bool:
    with suppress(OSError):
        path.rmdir()
        return True
    return False
