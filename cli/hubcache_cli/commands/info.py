"""`hubcache info`: one cached commit in full."""

from __future__ import annotations

import time
from typing import Any

from hubcache.app.described import DescribedFile, Description, describe
from hubcache_cli.options import AsJson, CacheDir, CachedReference, TypeOption, make_local_app, parse_kind
from hubcache_cli.output import (
    age_text,
    counted,
    plain,
    print_json,
    print_labelled,
    print_table,
    shorten,
    size_text,
    terminal_width,
)


def run(
    reference: CachedReference, kind: TypeOption = None, as_json: AsJson = False, cache_dir: CacheDir = None
) -> None:
    """Show a cached repo: its commit, refs and origin, and each file with its size, digest and whether it is here.

    `pickle` marks files whose loading can run code, `code` marks Python files.
    """
    found = describe(make_local_app(cache_dir), reference, kind=parse_kind(kind))
    if as_json:
        print_json(_facts(found))
        return
    for name, text in _lines(found):
        print_labelled(f"{name:<10}", text)
    for line in found.conversion.notes if found.conversion else ():
        print_labelled(f"{'':<10}", line)
    if found.files:
        print()
        _print_files(found)


def _lines(found: Description) -> list[tuple[str, str]]:
    """Pair what is known with its name."""
    size = f"{size_text(found.size)} in {counted(len(found.files), 'file')}"
    if found.missing:
        missing = sum(file.blob.size for file in found.missing)
        size += f", {counted(len(found.missing), 'file')} ({size_text(missing)}) missing"
    pulled = "unknown, it was not pulled by hubcache"
    if found.pulled_at is not None:
        age = age_text(time.time() - found.pulled_at)
        pulled = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.pulled_at))
        pulled += f" ({age})" if age == "now" else f" ({age} ago)"
    lines = [
        (found.repo.kind, found.repo.name),
        ("commit", found.commit),
        ("refs", ", ".join(found.refs) or "none"),
        ("source", found.source),
        ("origin", found.origin),
        ("pulled", pulled),
        ("converted", "" if found.conversion is None else f"from {found.conversion.original}"),
        ("size", size),
        ("listing", "" if found.is_listed else "none: what is here is all that is known of the commit"),
        ("snapshot", str(found.path)),
    ]
    return [(name, text) for name, text in lines if text]


def _print_files(found: Description) -> None:
    rows = [
        (plain(file.path), size_text(file.blob.size), file.blob.digest.hex[:12], _remarks(file)) for file in found.files
    ]
    header = ("FILE", "SIZE", "DIGEST", "NOTE")
    rest = [max(len(row[column]) for row in (header, *rows)) for column in (1, 2, 3)]
    room = terminal_width() - sum(rest) - 2 * len(rest)
    print_table(header, [(shorten(row[0], room), *row[1:]) for row in rows], right=(1,))


def _remarks(file: DescribedFile) -> str:
    return ", ".join(text for text in ("" if file.present else "missing", file.risk) if text)


def _facts(found: Description) -> dict[str, Any]:
    return {
        "repo": found.repo.name,
        "type": found.repo.kind,
        "commit": found.commit,
        "refs": list(found.refs),
        "path": str(found.path),
        "source": found.source or None,
        "origin": found.origin or None,
        "pulled_at": found.pulled_at,
        "original_commit": None if found.conversion is None else found.conversion.original,
        "conversion_notes": [] if found.conversion is None else list(found.conversion.notes),
        "is_listed": found.is_listed,
        "size": found.size,
        "missing_size": sum(file.blob.size for file in found.missing),
        "files": [
            {
                "path": file.path,
                "size": file.blob.size,
                "digest": file.blob.digest.hex,
                "present": file.present,
                "risk": file.risk or None,
            }
            for file in found.files
        ],
    }
