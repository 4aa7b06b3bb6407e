"""`hubcache export`: a cached model in another form, as a repo of the cache."""

from __future__ import annotations

from typing import Annotated

import typer

from hubcache.app.exporting import MergeRequest, merge
from hubcache.errors import UsageError
from hubcache_cli.options import AsJson, CacheDir, CachedReference, Quiet, make_local_app
from hubcache_cli.output import note, print_json


def run(
    reference: CachedReference,
    is_merged: Annotated[bool, typer.Option("--merge", help="Add an adapter's weights to its base's.")] = False,
    output: Annotated[str | None, typer.Option("--output", help="The repo to make: org/name.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="Merge into this model, whatever it is.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    cache_dir: CacheDir = None,
) -> None:
    """Make another form of a cached model, offline: an adapter merged into its base. Prints the snapshot's path.

    LoRA and IA3 can be merged; a bottleneck adapter cannot, since no weight of the base can take it up.
    """
    if not is_merged or output is None:
        raise UsageError("say what to make and its name", hint=f"hubcache export {reference} --merge --output org/name")
    artifact, path = merge(make_local_app(cache_dir), MergeRequest(reference, output, base))
    if not quiet:
        note(f"kept as {artifact.repo}@{artifact.revision.asked}")
    if as_json:
        revision = artifact.revision
        told = {"repo": artifact.repo.name, "revision": revision.asked, "commit": revision.commit, "path": str(path)}
        print_json(told)
    else:
        print(path)
