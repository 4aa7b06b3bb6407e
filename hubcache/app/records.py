"""What is remembered beside the cache, in this machine's state folder: the index and the journal."""

from __future__ import annotations

from hubcache.app.settings import Settings
from hubcache.cache.index import Index
from hubcache.cache.journal import Journal


def open_index(settings: Settings) -> Index:
    """Open what was computed of the cache's files."""
    return Index(settings.state / "index.sqlite3" if settings.state is not None else None)


def open_journal(settings: Settings) -> Journal:
    """Open what was done to the cache."""
    return Journal(settings.state / "history.jsonl" if settings.state is not None else None)
