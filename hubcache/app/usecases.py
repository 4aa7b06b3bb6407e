"""What people do with a hub, as functions: pull, preview; what needs none is in local.py and described.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from hubcache.app.compose import App
from hubcache.app.converting import Converted, convert_pulled
from hubcache.app.local import PullRequest, parse_request
from hubcache.app.progress import NoProgress
from hubcache.cache.tidy import remove_if_empty
from hubcache.core.artifact import Artifact, RepoPath, Revision, parse_path
from hubcache.core.digests import Blob
from hubcache.core.layout import ORIGINAL
from hubcache.core.plan import CopyPlan, Preview, plan_copy
from hubcache.core.ports import Previewing, Progress, Source
from hubcache.core.reference import Reference
from hubcache.core.select import select
from hubcache.errors import EntryNotFound, HubcacheError, RepoNotFound
from hubcache.transfer import copy

__all__ = ["NoProgress", "Previewed", "PullRequest", "Pulled", "preview", "pull"]


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull brought: the reference in canonical form, the plan that was carried out, the snapshot folder.

    `converted` is what it was turned into, where it has to be to load; the ref that was asked for means that then.
    """

    reference: Reference
    plan: CopyPlan
    path: Path
    converted: Converted | None = None

    @property
    def artifact(self) -> Artifact:
        """The repo and the commit that was published."""
        return self.plan.artifact


@dataclass(frozen=True, slots=True)
class Previewed:
    """What a pull would fetch before it knows its commit."""

    reference: Reference
    preview: Preview


def pull(app: App, request: PullRequest, *, progress: Progress, notify: Callable[[str], None]) -> Pulled:
    """Bring a reference into the cache, verified, and publish it.

    Raises:
        HubcacheError: any of the tree in errors.py; what has arrived by then is resumed next time.
    """
    reference = parse_request(app, request, notify=notify)
    try:
        with closing(app.source(reference.scheme, progress, notify)) as source:
            plan = _plan(app, source, reference, request)
            app.cache.require_space(plan.missing_size - app.cache.resumable_size(plan))
            copy(source, plan, app.cache, progress=NoProgress() if _is_staged(plan) else progress)
            pulled = Pulled(reference, plan, _publish(app, plan, reference))
    except HubcacheError:
        remove_if_empty(app.cache.folder(reference.repo))
        raise
    return _converted(app, pulled, request, notify)


def _publish(app: App, plan: CopyPlan, reference: Reference) -> Path:
    """Make the files visible. What may have to be converted gets its last ref only when that is done, or fails."""
    artifact = plan.artifact
    if ORIGINAL in artifact.refs:
        artifact = replace(artifact, revision=Revision(ORIGINAL, artifact.revision.commit))
    return app.cache.commit(artifact, reference, paths=[file.path for file in plan.files])


def _converted(app: App, pulled: Pulled, request: PullRequest, notify: Callable[[str], None]) -> Pulled:
    """Convert what was published in a form that nothing loads; else the ref that was asked for means the original."""
    artifact, reference = pulled.artifact, pulled.reference
    if ORIGINAL not in artifact.refs:
        return pulled
    try:
        converted = (
            convert_pulled(app, artifact, reference, portable=request.portable, notify=notify)
            if request.convert
            else None
        )
    except HubcacheError as error:
        app.cache.commit(artifact, reference, paths=[file.path for file in pulled.plan.files])
        error.hint = error.hint or "what was published is complete; --no-convert keeps it as it is"
        raise
    if converted is None:
        app.cache.commit(artifact, reference, paths=[file.path for file in pulled.plan.files])
    return replace(pulled, converted=converted)


def preview(app: App, request: PullRequest, *, notify: Callable[[str], None]) -> Pulled | Previewed:
    """Say what a pull would transfer; Previewed where its commit is only known afterwards.

    Raises:
        HubcacheError: as pull, as far as it shows without a transfer.
    """
    reference = parse_request(app, request, notify=notify)
    with closing(app.source(reference.scheme, NoProgress(), notify)) as source:
        told = source.preview(reference) if isinstance(source, Previewing) else None
        if told is not None:
            return Previewed(reference, told)
        plan = _plan(app, source, reference, request)
    return Pulled(reference, plan, app.cache.folder(reference.repo).snapshot_path(plan.artifact.revision.commit))


def _plan(app: App, source: Source, reference: Reference, request: PullRequest) -> CopyPlan:
    try:
        artifact = source.resolve(reference)
    except RepoNotFound as error:
        if near := get_close_matches(request.text, app.mirrors.catalogue, n=1):
            error.hint = f"did you mean the catalogue's {near[0]}?"
        raise
    return plan_copy(artifact, _wanted(app, artifact, reference, request), _presence(app, artifact))


def _is_staged(plan: CopyPlan) -> bool:
    """Tell whether resolving has fetched everything already, so that the copy is no transfer of its own."""
    return plan.artifact.validator is not None


def _presence(app: App, artifact: Artifact) -> Callable[[RepoPath, Blob], bool]:
    return lambda path, blob: app.cache.has_file(artifact, path, blob)


def _wanted(app: App, artifact: Artifact, reference: Reference, request: PullRequest) -> list[RepoPath]:
    """Choose the files; a single one that the commit lacks is an answer worth remembering."""
    paths = select(artifact.manifest.files, include=request.include, exclude=request.exclude, below=reference.path)
    if paths or not artifact.manifest.files:
        return paths
    named = [text for text in (reference.path, *request.include) if text and not set(text) & set("*?[")]
    if len(named) == 1 and not named[0].endswith("/") and artifact.is_whole:
        app.cache.mark_absent(artifact.repo, artifact.revision.commit, parse_path(named[0]))
    what = ", ".join(text for text in (reference.path, *request.include) if text) or "what is left after --exclude"
    some = ", ".join(list(artifact.manifest.files)[:5])
    raise EntryNotFound(
        f"{artifact.repo}@{artifact.revision.commit[:12]} has no file {what}", hint=f"it has: {some}, …"
    )
