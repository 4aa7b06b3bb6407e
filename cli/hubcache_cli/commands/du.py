"""`hubcache du`: what the cache's bytes are."""

from __future__ import annotations

from typing import Annotated

import typer

from hubcache.app.usage import Way, measure
from hubcache_cli.options import AsJson, CacheDir, make_settings
from hubcache_cli.output import counted, note, plain, print_json, print_table, shorten, size_text, terminal_width


def run(
    by: Annotated[Way, typer.Option("--by", help="How to sum it up.")] = "org",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the largest so many.")] = None,
    as_json: AsJson = False,
    cache_dir: CacheDir = None,
) -> None:
    """Sum up what stands on the disk, each blob once, by hub, organisation, type, format or repo.

    `(no snapshot)` are blobs that no snapshot links to, `(unfinished)` interrupted downloads: `hubcache gc` knows more.
    """
    root = make_settings(cache_dir).hub_cache
    shares = measure(root, by)
    total = sum(share.size for share in shares)
    if as_json:
        print_json([{"name": share.name, "size": share.size, "files": share.count} for share in shares[:limit]])
        return
    rows = [
        (size_text(share.size), f"{100 * share.size / total:.1f} %" if total else "", str(share.count), share.name)
        for share in shares[:limit]
    ]
    if rows:
        room = max(20, terminal_width() - 34)
        print_table(
            ("SIZE", "SHARE", "FILES", by.upper()),
            [(*row[:3], shorten(plain(row[3]), room)) for row in rows],
            right=(0, 1, 2),
        )
    note(f"{size_text(total)} in {counted(sum(share.count for share in shares), 'file')}, {root}")
