"""What to type so that a damaged repo is whole again; nothing is repaired here."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from hubcache.app.local import source_text
from hubcache.cache.findings import Problem
from hubcache.cache.folder import RepoFolder
from hubcache.core.artifact import RepoId
from hubcache.core.ids import canonical, parse
from hubcache.core.reference import Reference
from hubcache.errors import BadReference
from hubcache.sources.registry import schemes


def repair_command(repos: Sequence[RepoId], *, options: Sequence[str] = ()) -> str:
    """Write the command that repairs one repo, or all where several are damaged, with `options`."""
    named = [_typed(canonical(Reference("hf", repo.name, repo)), repo) for repo in repos]
    return shlex.join(["hubcache", "verify", "--repair", *(named if len(named) == 1 else []), *options])


def pull_command(folder: RepoFolder, problems: Sequence[Problem], *, options: Sequence[str] = ()) -> str:
    """Write the command that pulls again what a repair could not bring."""
    return shlex.join(["hubcache", "pull", *_arguments(folder, _revision(folder, problems)), *options])


def _typed(text: str, repo: RepoId) -> str:
    """Leave out the scheme where a bare name is the Hub's model."""
    return text.removeprefix("hf:") if repo.kind == "model" and "/" in repo.name else text


def _revision(folder: RepoFolder, problems: Sequence[Problem]) -> str:
    """Choose what to pull again: the ref that is damaged, or that means the commit which needs what is."""
    refs = folder.refs()
    for problem in problems:
        if problem.path.startswith("refs/"):
            return problem.path.removeprefix("refs/")
        if problem.commit:
            return next((name for name, held in sorted(refs.items()) if held == problem.commit), problem.commit)
    return "main"


def _arguments(folder: RepoFolder, revision: str) -> list[str]:
    """List the arguments with which `hubcache pull` brings a revision from where it came before."""
    repo = folder.repo
    source = source_text(folder.provenance(folder.commit_of(revision) or revision)) or f"hf:{repo.name}"
    if source.startswith("hf:"):
        name = source.removeprefix("hf:")
        named = RepoId("hf", repo.kind, name)
        source = _typed(canonical(Reference("hf", name, named, revision)), named)
    try:
        usual = parse(source, kind=repo.kind, schemes=schemes()).repo.name
    except BadReference:
        usual = repo.name
    return [source] if usual == repo.name else [source, "--as", repo.name]
