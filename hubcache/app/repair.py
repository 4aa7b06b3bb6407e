"""What to type so that a damaged repo is whole again; nothing is deleted here."""

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

MOST_PATHS = 5


def repair_command(folder: RepoFolder, problems: Sequence[Problem], *, options: Sequence[str] = ()) -> str:
    """Write the commands that delete what is wrong in one repo, and pull it again with `options`."""
    paths = list(dict.fromkeys(str(folder.path / problem.path) for problem in problems))[:MOST_PATHS]
    revision = _revision(folder, problems)
    return f"rm -r {shlex.join(paths)} && {shlex.join(['hubcache', 'pull', *_arguments(folder, revision), *options])}"


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
        source = canonical(Reference("hf", name, RepoId("hf", repo.kind, name), revision))
        source = source.removeprefix("hf:") if repo.kind == "model" and "/" in name else source
    try:
        usual = parse(source, kind=repo.kind, schemes=schemes()).repo.name
    except BadReference:
        usual = repo.name
    return [source] if usual == repo.name else [source, "--as", repo.name]
