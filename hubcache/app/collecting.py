"""What people do to keep a cache within bounds: collect, remove, undo, pin; what goes and stays is core/gc.py's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hubcache.app.local import LocalApp, PullRequest, parse_request
from hubcache.app.records import open_index, open_journal
from hubcache.app.settings import Settings
from hubcache.cache.collect import Removed, put_back, remove
from hubcache.cache.folder import RepoFolder
from hubcache.cache.inventory import take_inventory
from hubcache.cache.pinned import pin, read_pins, unpin
from hubcache.cache.undo import Restored
from hubcache.core.artifact import Kind
from hubcache.core.gc import Budget, plan_gc
from hubcache.core.inventory import ALL
from hubcache.core.picking import Target, plan_removal
from hubcache.core.reference import Reference
from hubcache.core.removal import Plan
from hubcache.errors import RepoNotFound, RevisionNotFound

_WHOLE_MAIN = ("@main", "/tree/main")


@dataclass(frozen=True, slots=True)
class Named:
    """What a reference means in the cache: a repo's folder, of it a revision ("" for all), of that a path."""

    folder: RepoFolder
    revision: str = ""
    path: str = ""

    @property
    def text(self) -> str:
        """The same, in words."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.folder.repo}{revision}" + (f"/{self.path}" if self.path else "")


def last_served(settings: Settings) -> dict[str, float]:
    """Recall when files of each repo were served last (unix seconds), by folder name."""
    with closing(open_index(settings)) as index:
        return {folder: float(last) for folder, (_, last) in index.uses(settings.hub_cache).items()}


def plan_collection(root: Path, budget: Budget, *, now: float, served: Mapping[str, float] | None = None) -> Plan:
    """Plan a gc of the cache; `now` is in unix seconds, `served` what last_served tells.

    Raises:
        CacheError: the cache cannot be listed.
    """
    return plan_gc(take_inventory(root, served), budget, now=now)


def plan_named(app: LocalApp, texts: Sequence[str], *, kind: Kind | None = None, undo: bool = True) -> Plan:
    """Plan the removal of what references name.

    Raises:
        NotFound: one of them is not in the cache.
        UsageError: one of them is pinned.
        CacheLocked: one of them is in use.
    """
    targets = [_target(find_named(app, text, kind=kind)) for text in texts]
    return plan_removal(take_inventory(app.cache.root), targets, undo=undo)


def carry_out(settings: Settings, plan: Plan) -> Removed:
    """Carry out a plan and note it.

    Raises:
        CacheLocked, DiskFull, CacheError: as hubcache.cache.collect.remove.
    """
    root = settings.hub_cache
    removed = remove(root, plan)
    skipped = {path.partition("/")[0] for path, _ in removed.skipped}
    for repo in dict.fromkeys(line.repo for line in plan.going) if removed.paths else ():
        lines = [line for line in plan.going if line.repo == repo]
        commits = {line.name for line in lines if line.kind == "commit"}
        note = "; ".join(dict.fromkeys(line.why for line in lines))[:200]
        if {unit.partition("/")[0] for line in lines for unit in line.units} & skipped:
            note = f"in part: {note}"
        commit = commits.pop() if len(commits) == 1 else ""
        size = sum(line.size for line in lines)
        open_journal(settings).add(plan.what, root=root, repo=repo, commit=commit, size=size, note=note)
    return removed


def undo_last(settings: Settings) -> Restored:
    """Put back what the last removal took.

    Raises:
        NotFound: there is none.
        CacheError: something new stands there.
    """
    restored = put_back(settings.hub_cache)
    open_journal(settings).add("undo", root=settings.hub_cache, size=restored.size, note=restored.name)
    return restored


def find_named(app: LocalApp, text: str, *, kind: Kind | None = None) -> Named:
    """Find what a reference means on the disk: `org/name` is all of the repo, `org/name@main` is that ref.

    Raises:
        NotFound: it is not in the cache.
    """
    reference = parse_request(app, PullRequest(text, kind=kind), notify=lambda _: None)
    folder = app.cache.folder(reference.repo)
    if not folder.path.is_dir():
        raise RepoNotFound(f"{reference.repo} is not in the cache {app.cache.root}", hint="hubcache ls")
    if reference.path is None and _is_whole(reference, text):
        return Named(folder)
    commit = folder.commit_of(reference.revision)
    if commit is None or not folder.snapshot_path(commit).is_dir():
        raise RevisionNotFound(
            f"{reference.repo} has no revision {reference.revision!r} in the cache {app.cache.root}",
            hint="hubcache ls --revisions",
        )
    is_ref = reference.revision in folder.refs()
    return Named(folder, reference.revision if is_ref else commit, reference.path or "")


def _is_whole(reference: Reference, text: str) -> bool:
    return reference.revision == "main" and not text.strip().rstrip("/").endswith(_WHOLE_MAIN)


def _target(named: Named) -> Target:
    folder, revision = named.folder, named.revision
    if revision in folder.refs():
        return Target(folder.path.name, ref=revision, path=named.path)
    return Target(folder.path.name, commit=revision, path=named.path)


def pin_named(app: LocalApp, text: str, *, why: str = "", kind: Kind | None = None) -> Named:
    """Keep what a reference means, whatever a budget says.

    Raises:
        NotFound: it is not in the cache.
        DiskFull, CacheError: it cannot be written down.
    """
    named = find_named(app, text, kind=kind)
    revision = named.revision or ALL
    held = read_pins(named.folder).get(revision)
    if held is None or held.why != why:
        pin(named.folder, revision, why=why)
        commit = named.folder.commit_of(revision) or "" if named.revision else ""
        _note(app, "pin", named, commit, why)
    return named


def unpin_named(app: LocalApp, text: str, *, kind: Kind | None = None) -> tuple[Named, bool]:
    """Keep it no longer; tell whether it was pinned. The revision need not be here any more.

    Raises:
        RepoNotFound: the repo is not in the cache.
        DiskFull, CacheError: it cannot be written down.
    """
    try:
        named = find_named(app, text, kind=kind)
    except RevisionNotFound:
        reference = parse_request(app, PullRequest(text, kind=kind), notify=lambda _: None)
        named = Named(app.cache.folder(reference.repo), reference.revision)
    was_pinned = unpin(named.folder, named.revision or ALL)
    if was_pinned:
        _note(app, "unpin", named, "", "")
    return named, was_pinned


def _note(app: LocalApp, what: str, named: Named, commit: str, why: str) -> None:
    note = (named.revision or "the whole repo") + (f": {why}" if why else "")
    open_journal(app.settings).add(what, root=app.cache.root, repo=str(named.folder.repo), commit=commit, note=note)
