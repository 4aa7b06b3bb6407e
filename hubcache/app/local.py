"""What works without any network: settings, mirrors file, cache, and what a reference means there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hubcache.app.settings import HUGGINGFACE, Settings
from hubcache.cache.folder import RepoFolder
from hubcache.cache.store import Cache
from hubcache.core.artifact import Artifact, Kind, RepoId, is_commit, parse_commit, parse_revision
from hubcache.core.ids import canonical, parse
from hubcache.core.reference import Reference
from hubcache.core.urls import archive_suffix
from hubcache.errors import BadReference, OfflineError
from hubcache.mirrors.config import MirrorsConfig, load
from hubcache.sources.registry import schemes


@dataclass(frozen=True, slots=True)
class LocalApp:
    """The parts that touch this machine only."""

    settings: Settings
    mirrors: MirrorsConfig
    cache: Cache

    def hub_urls(self) -> tuple[str, ...]:
        """List the addresses under which the Hub's pages are known."""
        configured = [mirror.url for mirror in self.mirrors.of("huggingface")]
        return tuple(dict.fromkeys([self.settings.endpoint, HUGGINGFACE, "https://hf.co", *configured]))


def compose_local(settings: Settings) -> LocalApp:
    """Wire the local parts for these settings.

    Raises:
        BadConfig: the mirrors file cannot be read.
    """
    mirrors = load([settings.mirrors_file] if settings.mirrors_file else [], project=settings.project_mirrors)
    return LocalApp(settings, mirrors, Cache(settings.hub_cache, symlinks=settings.symlinks))


@dataclass(frozen=True, slots=True)
class PullRequest:
    """One reference as it was typed, and what the options say of it.

    `convert` says that an original checkpoint is to be turned into what from_pretrained loads, and `portable`
    that the result carries its own modelling code.
    """

    text: str
    kind: Kind | None = None
    revision: str | None = None
    stored_as: str | None = None
    commit: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    convert: bool = True
    portable: bool = False


def parse_request(app: LocalApp, request: PullRequest, *, notify: Callable[[str], None]) -> Reference:
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
    if reference.scheme not in {"hf", "ms"} and is_commit(revision):
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


def find(app: LocalApp, texts: Sequence[str], *, kind: Kind | None = None) -> list[tuple[Reference, Artifact]]:
    """Resolve references from the cache alone.

    Raises:
        OfflineError: one of them is not there.
    """
    found = []
    for text in texts:
        reference = parse_request(app, PullRequest(text, kind=kind), notify=lambda _: None)
        found.append((reference, app.cache.resolve(reference)))
    return found


def locate(app: LocalApp, text: str, *, kind: Kind | None = None) -> tuple[RepoFolder, str | None]:
    """Find what a reference means on the disk, however damaged: the repo's folder, and the commit where one is named.

    Raises:
        OfflineError: it is not there.
    """
    reference = parse_request(app, PullRequest(text, kind=kind), notify=lambda _: None)
    folder = app.cache.folder(reference.repo)
    commit = None if reference.revision == "main" else folder.commit_of(reference.revision)
    if (commit is None and reference.revision != "main") or not folder.path.is_dir():
        raise OfflineError(f"{text} is not in the cache {app.cache.root}", hint=f"online, run: hubcache pull {text}")
    return folder, commit


def source_text(told: Mapping[str, Any]) -> str:
    """Return the reference that a commit's provenance names as its source, "" where it names none."""
    source = str(told.get("source") or "")
    return source.removeprefix("http:") if source.startswith(("http:http:", "http:https:")) else source
