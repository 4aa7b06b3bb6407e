"""Where a commit came from, written beside it; what is read of it is in folder.py."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext, suppress
from typing import Any

from hubcache.cache.folder import RepoFolder
from hubcache.core.artifact import Artifact
from hubcache.core.reference import Reference
from hubcache.errors import CacheError
from hubcache.localfile import write_atomically


def write_provenance(folder: RepoFolder, artifact: Artifact, reference: Reference) -> None:
    """Note what was asked of which source, and what the commit was made of, unless that stands there already.

    What the hub told of the repo is kept where it was not asked this time.
    """
    if not artifact.origin:  # resolved from this very cache, which knows more than the artifact says
        return
    told: dict[str, Any] = {
        "format_version": 1,
        "source": source_text(reference),
        "origin": artifact.origin,
        "validator": artifact.validator,
    }
    if (made := artifact.conversion) is not None:
        told |= {"converted_from": made.original, "conversion_rules": made.rules, "portable": made.portable}
        told["notes"] = list(made.notes)
    before = folder.provenance(artifact.revision.commit)
    is_known = {key: before.get(key) for key in told} == told
    about = before.get("about") if artifact.told is None else dict(artifact.told)
    if is_known and about == before.get("about"):
        return
    told |= {} if about is None else {"about": about}
    told["pulled_at"] = int(time.time())
    path = folder.provenance_path(artifact.revision.commit)
    # A cache that may only be read still answers a warm pull, though new tags cannot be noted in it.
    with suppress(CacheError) if is_known else nullcontext():
        write_atomically(path, json.dumps(told, indent=1).encode(), scratch=folder.path)


def source_text(reference: Reference) -> str:
    """Write what was asked of which source, whatever repo it is kept as."""
    pairs = "&".join(f"{key}={value}" for key, value in reference.arguments if key == "sha256")
    return f"{reference.scheme}:{reference.address}" + (f"#{pairs}" if pairs else "")
