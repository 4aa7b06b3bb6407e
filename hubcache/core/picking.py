"""Plans the removal of what somebody names: repos, revisions, files; what a budget takes is core/gc.py's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubcache.core.gc import commit_line, why_kept
from hubcache.core.inventory import HeldCommit, HeldRepo, Inventory
from hubcache.core.removal import Claims, Line, Plan
from hubcache.errors import CacheLocked, EntryNotFound, RevisionNotFound, UsageError


@dataclass(frozen=True, slots=True)
class Target:
    """What is to go: a repo by its folder; of it a ref, a commit, or a commit's file, or folder (ending in "/")."""

    folder: str
    commit: str = ""
    ref: str = ""
    path: str = ""


def plan_removal(inventory: Inventory, targets: Sequence[Target], *, undo: bool = True) -> Plan:
    """Plan the removal of the targets, and of the blobs that nobody else needs.

    Raises:
        UsageError: one of them is pinned.
        CacheLocked: one of them is open, or being pulled.
        NotFound: there is no such commit or file.
    """
    repos = {repo.folder: repo for repo in inventory.repos}
    claims, lines = Claims(inventory), []
    for folder in dict.fromkeys(target.folder for target in targets):
        if folder not in repos:
            raise RevisionNotFound(f"{folder} is not in the cache")
        lines += _repo_lines(repos[folder], [each for each in targets if each.folder == folder], claims)
    return Plan("remove", tuple(lines), inventory.at, not undo, inventory.used, inventory.free, 0, inventory.notes)


def _repo_lines(repo: HeldRepo, targets: Sequence[Target], claims: Claims) -> list[Line]:
    asked_whole = any(not (target.commit or target.ref) for target in targets)
    refs = {target.ref for target in targets if target.ref and not target.path}
    named = {target.commit for target in targets if not target.ref and not target.path}
    # A ref alone goes where others mean the same commit.
    going = [
        commit
        for commit in repo.commits
        if asked_whole or commit.name in named or (refs and commit.refs and refs.issuperset(commit.refs))
    ]
    for commit in going:
        _check(repo, commit)
    if asked_whole or (going and len(going) == len(repo.commits)):
        _check_whole(repo)
        size = sum(claims.drop(repo, blob) for blob in claims.orphans(repo))
        size += sum(claims.give_up(repo, commit)[1] for commit in repo.commits)
        size += sum(each.size for each in repo.leftovers)
        return [Line(True, "repo", repo.name, "", size, "it was asked for", (repo.folder,))]
    lines = [commit_line(repo, commit, claims, "it was asked for") for commit in going]
    rest = [commit for commit in repo.commits if commit not in going]
    lines += _ref_lines(repo, rest, refs)
    for target in targets:
        if target.path:
            lines += _file_lines(repo, _commit(repo, target), target.path, claims)
    return lines


def _ref_lines(repo: HeldRepo, rest: Sequence[HeldCommit], refs: set[str]) -> list[Line]:
    lines = []
    for commit in rest:
        for ref in sorted(refs & set(commit.refs)):
            if ref in repo.pins:
                raise _pinned(repo, ref, repo.pins[ref])
            others = ", ".join(sorted(set(commit.refs) - refs))
            units = (repo.path("refs", ref),)
            lines.append(Line(True, "ref", repo.name, ref, 0, f"the ref alone: {others} means the commit, too", units))
    return lines


def _file_lines(repo: HeldRepo, commit: HeldCommit, path: str, claims: Claims) -> list[Line]:
    _check(repo, commit)
    paths = [
        each for each in (*commit.links, *commit.files) if each == path or (path[-1] == "/" and each.startswith(path))
    ]
    if not paths:
        raise EntryNotFound(f"{repo.name}@{commit.name[:12]} has no file {path} in the cache")
    lines = []
    for each in paths:
        units, size = [repo.path("snapshots", commit.name, each)], commit.files.get(each, 0)
        if each in commit.links:
            freed = claims.give_up_link(repo, commit.links[each])
            units += [] if freed is None else [repo.path("blobs", commit.links[each])]
            size = freed or 0
        why = "it was asked for" if size or each in commit.files else "the link alone: others need its blob"
        lines.append(Line(True, "file", repo.name, f"{commit.name[:12]}/{each}", size, why, tuple(units)))
    return lines


def _commit(repo: HeldRepo, target: Target) -> HeldCommit:
    for commit in repo.commits:
        if commit.name == target.commit or (target.ref and target.ref in commit.refs):
            return commit
    raise RevisionNotFound(f"{repo.name} has no revision {target.ref or target.commit} in the cache")


def _check(repo: HeldRepo, commit: HeldCommit) -> None:
    """Refuse what is pinned or in use."""
    for name in (commit.name, *commit.refs):
        if name in repo.pins:
            raise _pinned(repo, name, repo.pins[name])
    if reason := why_kept(repo, commit):
        if reason in repo.pins.values():
            raise _pinned(repo, "", reason)
        raise CacheLocked(f"{repo.name}@{commit.name[:12]} stays: {reason}")


def _check_whole(repo: HeldRepo) -> None:
    for name, reason in repo.pins.items():
        raise _pinned(repo, "" if name == "*" else name, reason)
    busy = next((blob.busy for blob in repo.blobs if blob.busy), "")
    if reason := repo.problem or repo.pulling or busy:
        raise CacheLocked(f"{repo.name} stays: {reason}")


def _pinned(repo: HeldRepo, name: str, reason: str) -> UsageError:
    revision = f"@{name}" if name else ""
    return UsageError(f"{repo.name}{revision} stays: {reason}", hint=f"hubcache unpin {repo.name}{revision}")
