"""Which files of a manifest are wanted, by huggingface_hub's pattern rules; nothing is fetched here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from hubcache.core.artifact import RepoPath


def select(
    paths: Iterable[RepoPath], *, include: Sequence[str] = (), exclude: Sequence[str] = (), below: str | None = None
) -> list[RepoPath]:
    """Keep the paths that match any `include` (all, where there is none) and no `exclude`.

    Patterns are case-sensitive shell patterns in which `*` crosses `/`; one ending in `/` means the
    whole folder. `below` is a reference's own path: one file, or a folder ending in `/`.
    """
    wanted = [_pattern(text) for text in include] or ["*"]
    unwanted = [_pattern(text) for text in exclude]
    return [
        path
        for path in paths
        if _is_below(path, below)
        and any(fnmatchcase(path, pattern) for pattern in wanted)
        and not any(fnmatchcase(path, pattern) for pattern in unwanted)
    ]


def _pattern(text: str) -> str:
    text = text.replace("\\", "/")
    return text + "*" if text.endswith("/") else text


def _is_below(path: str, below: str | None) -> bool:
    if below is None:
        return True
    return path.startswith(below) if below.endswith("/") else path == below
