"""`hubcache pin`: what stays in the cache whatever a budget says."""

from __future__ import annotations

from typing import Annotated

import typer

from hubcache.app.collecting import pin_named
from hubcache_cli.options import AsJson, CacheDir, CachedReference, TypeOption, make_local_app, parse_kind
from hubcache_cli.output import note, print_json


def run(
    reference: CachedReference,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for whoever asks later.")] = "",
    kind: TypeOption = None,
    as_json: AsJson = False,
    cache_dir: CacheDir = None,
) -> None:
    """Keep org/name as a whole, or org/name@revision: gc and rm leave it alone.

    The pin of a ref holds for the commit that the ref means at the time; that of a commit holds for the commit.
    """
    named = pin_named(make_local_app(cache_dir), reference, why=why, kind=parse_kind(kind))
    if as_json:
        print_json({"repo": named.folder.repo.name, "revision": named.revision or None, "pinned": True})
    else:
        note(f"{named.text} is pinned")
