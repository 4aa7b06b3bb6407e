"""Where the cache's symlinks lead: to a blob, elsewhere in the repo, to the shared store, or out; nothing is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Lead:
    """Where a link leads; `end` is a blob's file name, else a path with no link left in it."""

    place: Literal["blob", "repo", "store", "outside"]
    end: str


def follow(link: str, *, repo: str, root: str) -> Lead:
    """Follow a symlink of a repo's folder, which lies in the cache `root`; where it leads need not exist.

    huggingface_hub keeps what came by Xet in `blobs/` of the root, the store that all repos share.
    """
    target = os.path.join(os.path.dirname(link), os.readlink(link))
    folder, name = os.path.split(os.path.normpath(target))
    # No folder below a snapshot is a link (walk does not enter those), so the text alone tells the usual case.
    if folder == f"{repo}/blobs":
        return Lead("blob", name)
    if os.path.realpath(folder) == os.path.realpath(f"{repo}/blobs"):
        return Lead("blob", name)
    end = os.path.realpath(target)
    if _is_below(end, os.path.realpath(f"{root}/blobs")):
        return Lead("store", end)
    return Lead("repo" if _is_below(end, os.path.realpath(repo)) else "outside", end)


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder + os.sep)
