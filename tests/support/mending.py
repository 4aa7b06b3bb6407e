"""`hubcache verify --repair --yes` in this process: the same steps, without a command line; it judges nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hubcache.app.progress import NoProgress
from hubcache.app.repairing import Damaged, Repaired, plan_repair, repair
from hubcache.cache.findings import Report
from hubcache.cache.folder import RepoFolder
from hubcache.cache.verify import verify_repo
from tests.support.puller import Puller

NOBODY = "http://127.0.0.1:9"


def mend(folder: RepoFolder, endpoint: str = NOBODY, *, offline: bool = False, links: bool = True) -> Repaired:
    """Verify a repo and repair what is wrong, from a hub at this endpoint."""
    symlinks = None if links else False
    app = Puller.into(folder.root, endpoint, offline=offline, symlinks=symlinks, state=state_of(folder.root)).app

    def check() -> Report:
        return verify_repo(folder, progress=NoProgress())

    return repair(
        app, Damaged(folder, plan_repair(folder, check()), check), progress=NoProgress(), notify=lambda _: None
    )


def problems(folder: RepoFolder) -> list[tuple[str, str]]:
    """List what is wrong now: kind, path."""
    return [(problem.kind, problem.path) for problem in verify_repo(folder, progress=NoProgress()).problems]


def state_of(cache: Path) -> Path:
    """Return the state folder that belongs to a test's cache."""
    return cache.parent / "state"


@contextmanager
def reachable(path: Path) -> Iterator[None]:
    """Let everybody come to a path as long as the block lasts; pytest keeps its folders to their owner."""
    closed = {parent: parent.stat().st_mode for parent in path.parents if not parent.stat().st_mode & 0o001}
    try:
        for parent, mode in closed.items():
            parent.chmod(mode | 0o055)
        yield
    finally:
        for parent, mode in closed.items():
            parent.chmod(mode)
