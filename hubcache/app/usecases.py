"""What people do, as functions: pull, path, info; the command line and other programs call these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from hubcache.app.compose import App
from hubcache.cache.tidy import remove_if_empty
from hubcache.core.artifact import Artifact, Kind, RepoId, RepoPath, is_commit, parse_commit, parse_path, parse_revision
from hubcache.core.digests import Blob
from hubcache.core.ids import canonical, parse
from hubcache.core.plan import CopyPlan, Preview, plan_copy
from hubcache.core.ports import Previewing, Progress, Source
from hubcache.core.reference import Reference
from hubcache.core.select import select
from hubcache.core.urls import archive_suffix
from hubcache.errors import BadReference, EntryNotFound, HubcacheError, RepoNotFound
from hubcache.sources.registry import schemes
from hubcache.transfer import copy


class NoProgress:
    """Nobody is watching."""

    def begin(self, files: int, size: int, /) -> None:
        """Ignore it."""

    def advance(self, size: int, origin: str, /) -> None:
        """Ignore it."""

    def finish_file(self, path: str, /) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class PullRequest:
    """One reference as it was typed, and what the options say of it."""

    text: str
    kind: Kind | None = None
    revision: str | None = None
    stored_as: str | None = None
    commit: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull brought: the reference in canonical form, the plan that was carried out, the snapshot folder."""

    reference: Reference
    plan: CopyPlan
    path: Path

    @property
    def artifact(self) -> Artifact:
        """The repo and the commit."""
        return self.plan.artifact


@dataclass(frozen=True, slots=True)
class Previewed:
    """What a pull would fetch before it knows its commit."""

    reference: Reference
    preview: Preview


def parse_request(app: App, request: PullRequest, *, notify: Callable[[str], None]) -> Reference:
    """Read a reference and its options, and say how an ambiguous one was taken.

    A bare `org/name` is always a hub's repo, also where a folder of that name stands here; a path
    begins with ./, ../, / or ~, or ends like an archive.

    Raises:
        BadReference: what was understood, what is wrong, and the nearest valid form.
    """
    reference = parse(
        request.text, kind=request.kind, hub_urls=app.hub_urls(), catalogue=app.mirrors.catalogue, schemes=schemes()
    )
    if reference.scheme == "file":
        reference = replace(reference, address=str(Path(reference.address).expanduser().absolute()))
    elif reference.scheme == "hf" and request.text == reference.address and Path(request.text).exists():
        notify(f"taking {request.text} as a repo of the Hub; for the folder here, say ./{request.text}")
    if request.revision is not None:
        reference = _at_revision(reference, parse_revision(request.revision))
    if request.stored_as is not None:
        kind = request.kind or reference.repo.kind
        reference = reference.stored_as(RepoId.parse(request.stored_as, hub=reference.repo.hub, kind=kind))
    if request.commit is not None:
        reference = _claim_commit(reference, parse_commit(request.commit), stored=request.stored_as is not None)
    return reference


def _at_revision(reference: Reference, revision: str) -> Reference:
    if reference.revision not in {"main", revision}:
        raise BadReference(f"two revisions: {reference.revision!r} in the reference, {revision!r} in --revision")
    if reference.scheme != "hf" and is_commit(revision):
        raise BadReference(f"{canonical(reference)} has no commits to choose from", hint="leave --revision out")
    return replace(reference, revision=revision)


def _claim_commit(reference: Reference, commit: str, *, stored: bool) -> Reference:
    if reference.scheme != "file" or not stored or archive_suffix(reference.address) is not None:
        raise BadReference(
            "--commit says which commit of a hub's repo a local folder's files are",
            hint="hubcache pull ./FOLDER --as org/name --commit SHA",
        )
    repo = replace(reference.repo, hub="hf")
    return replace(reference, repo=repo, arguments=(*reference.arguments, ("commit", commit)))


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
            path = app.cache.commit(plan.artifact, reference, paths=[file.path for file in plan.files])
    except HubcacheError:
        remove_if_empty(app.cache.folder(reference.repo))
        raise
    return Pulled(reference, plan, path)


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


def find(app: App, texts: Sequence[str], *, kind: Kind | None = None) -> list[tuple[Reference, Artifact]]:
    """Resolve references from the cache alone.

    Raises:
        OfflineError: one of them is not there.
    """
    found = []
    for text in texts:
        reference = parse_request(app, PullRequest(text, kind=kind), notify=lambda _: None)
        found.append((reference, app.cache.resolve(reference)))
    return found
