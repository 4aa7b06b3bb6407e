"""`hubcache convert`: an original checkpoint in the cache, made into what from_pretrained loads."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubcache.app.converting import Converted, ConvertRequest, convert
from hubcache_cli.options import AsJson, CacheDir, CachedReference, Portable, Quiet, make_local_app
from hubcache_cli.output import counted, note, print_json, size_text


def run(
    reference: CachedReference,
    stored_as: Annotated[str | None, typer.Option("--as", help="The name to keep the result under: org/name.")] = None,
    portable: Portable = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    cache_dir: CacheDir = None,
) -> None:
    """Turn a cached original checkpoint of StructBERT, PALM, VECO or KE-T5 into a commit that from_pretrained loads.

    Pickles are read without running them, renamed keys and a missing config are repaired, and every tensor is
    accounted for. refs/main means the result then, refs/original what was published. Prints the snapshot's path.
    """
    converted = convert(make_local_app(cache_dir), ConvertRequest(reference, stored_as, portable))
    if not quiet:
        for line in converted.conversion.notes:
            note(line)
        artifact = converted.artifact
        files = counted(len(converted.plan.files), "file")
        note(f"{artifact.repo}@{artifact.revision.commit[:12]}: {files}, {size_text(converted.plan.size)}")
    if as_json:
        print_json(_facts(converted))
    else:
        print(converted.path)


def _facts(converted: Converted) -> dict[str, Any]:
    artifact = converted.artifact
    return {
        "repo": artifact.repo.name,
        "revision": artifact.revision.asked,
        "commit": artifact.revision.commit,
        "original_commit": converted.conversion.original,
        "path": str(converted.path),
        "portable": converted.conversion.portable,
        "notes": list(converted.conversion.notes),
        "size": converted.plan.size,
    }
