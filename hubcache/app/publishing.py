"""A finished folder made a commit of the cache, its files moved in; what made it is not known here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hubcache.app.local import LocalApp
from hubcache.app.progress import NoProgress
from hubcache.core.artifact import Artifact, RepoId, Revision
from hubcache.core.plan import plan_copy
from hubcache.core.reference import Reference
from hubcache.sources.files import LocalFiles
from hubcache.sources.folder import computed_artifact, hash_files
from hubcache.transfer import copy


def publish_folder(app: LocalApp, folder: Path, repo: RepoId, *, origin: str) -> tuple[Artifact, Path]:
    """Move a folder's files into the cache as a commit of `repo`; return it and its snapshot.

    It is refs/main where the repo is new, else the first free of refs/run-2, run-3, …: nothing that is there changes
    its meaning. `origin` is told as where it came from.

    Raises:
        DiskFull, CacheError: as the cache raises them; the folder's files that were not moved are still there.
    """
    branch = _free_branch(app, repo)
    reference = Reference("file", str(folder), repo, branch)
    hashed = hash_files(folder)
    found = computed_artifact(reference, hashed)
    artifact = replace(found, revision=Revision(branch, found.revision.commit), origin=origin, refs=())
    paths = list(artifact.manifest.files)
    plan = plan_copy(artifact, paths, lambda path, blob: app.cache.has_file(artifact, path, blob))
    app.cache.require_space(plan.missing_size)
    copy(LocalFiles(artifact, {path: folder / path for path in paths}, {}), plan, app.cache, progress=NoProgress())
    return artifact, app.cache.commit(artifact, reference)


def _free_branch(app: LocalApp, repo: RepoId) -> str:
    refs = app.cache.folder(repo).refs()
    if "main" not in refs:
        return "main"
    number = 2
    while f"run-{number}" in refs:
        number += 1
    return f"run-{number}"
