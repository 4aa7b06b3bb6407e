"""What was done to a cache: the journal, and the pulls that the commits themselves remember; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator

from hubcache.app.local import source_text
from hubcache.app.records import open_journal
from hubcache.app.settings import Settings
from hubcache.cache.folder import RepoFolder
from hubcache.cache.journal import Event
from hubcache.cache.scan import scan_repos


def read_history(settings: Settings, repo: str | None = None) -> list[Event]:
    """List what was done to the settings' cache, oldest first; `repo` is one as `str(RepoId)` writes it."""
    root = str(settings.hub_cache)
    noted = [event for event in open_journal(settings).events() if event.root == root]
    known = {(event.repo, event.commit) for event in noted if event.what in {"pull", "adopt"}}
    pulls = [event for event in _pulls(settings) if (event.repo, event.commit) not in known]
    events = sorted([*noted, *pulls], key=lambda event: event.at)
    return [event for event in events if repo is None or event.repo == repo]


def _pulls(settings: Settings) -> Iterator[Event]:
    """Read from the provenance of each commit when it came, and from where."""
    for folder in scan_repos(settings.hub_cache):
        for commit in _commits(folder):
            told = folder.provenance(commit)
            at = told.get("pulled_at")
            if isinstance(at, int):
                what = "convert" if told.get("converted_from") else "pull"
                yield Event(at, what, str(folder.repo), commit, note=source_text(told))


def _commits(folder: RepoFolder) -> list[str]:
    try:
        names = [path.stem for path in (folder.path / "provenance").iterdir() if path.suffix == ".json"]
    except OSError:
        return []
    return sorted(names)
