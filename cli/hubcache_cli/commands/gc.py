"""`hubcache gc`: the cache kept within bounds, with every line explained."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from hubcache.app.collecting import last_served, plan_collection
from hubcache.core.amounts import parse_size, parse_span
from hubcache.core.gc import Budget
from hubcache.errors import UsageError
from hubcache_cli.options import AsJson, CacheDir, make_settings
from hubcache_cli.removing import run_undo, settle


def run(
    max_size: Annotated[str | None, typer.Option(metavar="SIZE", help="The cache takes at most this: 500GB.")] = None,
    min_free: Annotated[str | None, typer.Option(metavar="SIZE", help="The disk has at least this free: 50GB.")] = None,
    unused_for: Annotated[str | None, typer.Option(metavar="SPAN", help="What was not used for so long: 30d.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan alone.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Put the last removal back.")] = False,
    no_undo: Annotated[bool, typer.Option("--no-undo", help="Remove for good, and empty the trash.")] = False,
    as_json: AsJson = False,
    cache_dir: CacheDir = None,
) -> None:
    """Remove what nothing needs, and by a budget what is least recently used; say of everything why.

    Without a budget: orphan blobs, commits without a ref that were not used for 30 days, and what interrupted
    writes left a day ago. A budget then takes whole commits, the least recently used first.

    Never what is pinned, what a process has open, or what is being pulled. What goes can be undone for a day, unless
    a budget needs its room at once.
    """
    settings = make_settings(cache_dir)
    if undo:
        if max_size or min_free or unused_for or no_undo:
            raise UsageError("--undo stands alone", hint="hubcache gc --undo")
        run_undo(settings, as_json=as_json)
        return
    budget = Budget(
        max_size=None if max_size is None else parse_size(max_size),
        min_free=None if min_free is None else parse_size(min_free),
        unused_for=None if unused_for is None else parse_span(unused_for),
        undo=not no_undo,
    )
    plan = plan_collection(settings.hub_cache, budget, now=time.time(), served=last_served(settings))
    settle(settings, plan, yes=yes, dry_run=dry_run, as_json=as_json)
