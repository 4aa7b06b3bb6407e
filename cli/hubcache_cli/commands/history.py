"""`hubcache history`: what was done to this cache, and when."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from hubcache.app.history import read_history
from hubcache.cache.journal import Event
from hubcache_cli.options import AsJson, CacheDir, complete_cached, make_settings
from hubcache_cli.output import note, plain, print_json, print_table, shorten, size_text, terminal_width


def run(
    repo: Annotated[
        str | None, typer.Argument(metavar="[REPO]", help="Only this one.", autocompletion=complete_cached)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 100,
    as_json: AsJson = False,
    cache_dir: CacheDir = None,
) -> None:
    """Show what was pulled, adopted, repaired, pinned and removed, the newest last.

    What was pulled stands beside each commit; the rest is in history.jsonl in the state folder, and gone with it.
    """
    settings = make_settings(cache_dir)
    events = read_history(settings, repo)[-limit:]
    if as_json:
        print_json([_facts(event) for event in events])
        return
    if not events:
        note("nothing is known to have been done" + (f" to {repo}" if repo else ""))
        return
    rows = [
        (_when(event.at), event.what, event.repo, size_text(event.size) if event.size else "", _rest(event))
        for event in events
    ]
    rest = [max(len(row[column]) for row in rows) for column in (0, 1, 3)]
    room = max(30, terminal_width() - sum(rest) - 8)
    shown = [
        (row[0], row[1], shorten(plain(row[2]), room // 2), row[3], shorten(plain(row[4]), room // 2)) for row in rows
    ]
    print_table(("WHEN", "WHAT", "REPO", "SIZE", "NOTE"), shown, right=(3,))


def _when(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _rest(event: Event) -> str:
    return " ".join(text for text in (event.commit[:12], event.note) if text)


def _facts(event: Event) -> dict[str, object]:
    return {
        "at": event.at,
        "what": event.what,
        "repo": event.repo or None,
        "commit": event.commit or None,
        "size": event.size,
        "note": event.note or None,
    }
