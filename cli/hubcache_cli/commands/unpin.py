"""`hubcache unpin`: what need not stay in the cache any more."""

from __future__ import annotations

from hubcache.app.collecting import unpin_named
from hubcache.cache.pinned import read_pins
from hubcache_cli.options import AsJson, CacheDir, CachedReference, TypeOption, make_local_app, parse_kind
from hubcache_cli.output import note, plain, print_json


def run(
    reference: CachedReference, kind: TypeOption = None, as_json: AsJson = False, cache_dir: CacheDir = None
) -> None:
    """Take back the pin of org/name as a whole, or of org/name@revision; nothing is removed."""
    named, was_pinned = unpin_named(make_local_app(cache_dir), reference, kind=parse_kind(kind))
    if as_json:
        facts = {"repo": named.folder.repo.name, "revision": named.revision or None, "pinned": False}
        print_json(facts | {"was_pinned": was_pinned})
        return
    note(f"{named.text} is pinned no longer" if was_pinned else f"{named.text} was not pinned")
    if others := sorted(read_pins(named.folder)):
        note(f"still pinned: {plain(', '.join(others))}")
