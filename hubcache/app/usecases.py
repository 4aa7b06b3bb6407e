"""What people do, as functions: pull, path, info; the command line and other programs call these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from hubcache.app.compose import App
from hubcache.core.artifact import Artifact, Kind, RepoId, RepoPath, is_commit, parse_commit, parse_path, parse_revision
from hubcache.core.digests import Blob
from hubcache.core.ids import canonical, parse
from hubcache.core.plan import CopyPlan, plan_copy
from hubcache.core.ports import Progress
from hubcache.core.reference import Reference
from hubcache.core.select import select
from hubcache.core.urls import archive_suffix
from hubcache.errors import BadReference, EntryNotFound
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


def pull(
    app: App, request: PullRequest, *, progress: Progress, notify: Callable[[str], None], dry_run: bool = False
) -> Pulled:
    """Bring a reference into the cache, verified, and publish it; with `dry_run`, plan it only.

    Raises:
        HubcacheError: any of the tree in errors.py; what has arrived by then is resumed next time.
    """
    reference = parse_request(app, request, notify=notify)
    with closing(app.source(reference.scheme, progress, notify)) as source:
        artifact = source.resolve(reference)
        paths = _wanted(app, artifact, reference, request)
        plan = plan_copy(artifact, paths, _presence(app, artifact))
        folder = app.cache.folder(artifact.repo)
        if not dry_run:
            app.cache.require_space(plan.missing_size - app.cache.resumable_size(plan))
            copy(source, plan, app.cache, progress=NoProgress() if reference.scheme != "hf" else progress)
            app.cache.commit(artifact, reference, paths=paths)
    return Pulled(reference, plan, folder.snapshot_path(artifact.revision.commit))


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
