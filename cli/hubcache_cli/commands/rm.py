"""`hubcache rm`: repos, revisions and files taken out of the cache."""

from __future__ import annotations

from typing import Annotated

import typer

from hubcache.app.collecting import plan_named
from hubcache.errors import UsageError
from hubcache_cli.options import (
    AsJson,
    CacheDir,
    TypeOption,
    complete_cached,
    make_local_app,
    make_settings,
    parse_kind,
)
from hubcache_cli.removing import run_undo, settle


def run(
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REF...]", help="Cached references.", autocompletion=complete_cached),
    ] = None,
    kind: TypeOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan alone.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Put the last removal back.")] = False,
    no_undo: Annotated[bool, typer.Option("--no-undo", help="Remove for good.")] = False,
    as_json: AsJson = False,
    cache_dir: CacheDir = None,
) -> None:
    """Remove org/name, org/name@revision, or hf://org/name@revision/file from the cache.

    Blobs that others link to stay. A revision that is named by a ref goes when no other ref means it; else the ref
    alone goes. What is pinned, open or being pulled is refused. What goes can be undone for a day.
    """
    if undo:
        if references or no_undo:
            raise UsageError("--undo stands alone", hint="hubcache rm --undo")
        run_undo(make_settings(cache_dir), as_json=as_json)
        return
    if not references:
        raise UsageError("what is to go has to be named", hint="hubcache rm org/name, or hubcache gc")
    app = make_local_app(cache_dir)
    plan = plan_named(app, references, kind=parse_kind(kind), undo=not no_undo)
    settle(app.settings, plan, yes=yes, dry_run=dry_run, as_json=as_json)
