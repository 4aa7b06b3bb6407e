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
    pulled = _when(found.pulled_at) or "unknown, it was not pulled by hubcache"
    lines = [
        (found.repo.kind, found.repo.name),
        ("commit", found.commit),
        ("refs", ", ".join(found.refs) or "none"),
        ("source", found.source),
        ("origin", found.origin),
        ("pulled", pulled),
        ("converted", "" if found.conversion is None else f"from {found.conversion.original}"),
        ("licence", _licence(found)),
        ("access", _access(found)),
        ("size", size),
        ("verified", _when(found.verified_at)),
        ("kept by", _kept_by(found)),
        ("listing", "" if found.is_listed else "none: what is here is all that is known of the commit"),
        ("snapshot", str(found.path)),
    ]
    return [(name, text) for name, text in lines if text]


def _when(at: int | None) -> str:
    """Write a time for people, with how long ago that was."""
    if at is None:
        return ""
    age = age_text(time.time() - at)
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) + (f" ({age})" if age == "now" else f" ({age} ago)")


def _licence(found: Description) -> str:
    told = found.about.card.get("license")
    return plain(", ".join(map(str, told)) if isinstance(told, list) else str(told or ""))


def _access(found: Description) -> str:
    return "private" if found.about.private else "gated" if found.about.gated else ""


def _kept_by(found: Description) -> str:
    """Say what keeps the commit when room is made."""
    pins = [f"pin of {'the repo' if each.revision == '*' else each.revision}" for each in found.pins]
    why = [f"{text} ({plain(each.why)})" if each.why else text for text, each in zip(pins, found.pins, strict=True)]
    return ", ".join([*why, *(f"ref {name}" for name in found.refs)]) or "nothing: gc may take it"


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
        "licence": _licence(found) or None,
        "private": found.about.private,
        "gated": bool(found.about.gated),
        "verified_at": found.verified_at,
        "pins": [{"revision": each.revision, "at": each.at, "why": each.why or None} for each in found.pins],
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
