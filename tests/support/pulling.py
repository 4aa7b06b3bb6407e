"""Caches that hubcache's own pull has filled from a LoopHub, in this process; it judges nothing."""

from __future__ import annotations

from pathlib import Path

from hubcache.app.compose import compose
from hubcache.app.settings import Settings
from hubcache.app.usecases import NoProgress, PullRequest, pull
from hubcache.cache.folder import RepoFolder
from tests.support.loophub import LoopHub


def pull_into(cache: Path, hub: LoopHub, text: str, *, include: tuple[str, ...] = (), links: bool = True) -> RepoFolder:
    """Pull a reference into the cache, with symlinks or as on a disk without them."""
    environ = {"HOME": str(cache.parent), "HF_HUB_CACHE": str(cache), "HF_ENDPOINT": hub.endpoint}
    app = compose(Settings.from_environ(environ | ({} if links else {"HF_HUB_DISABLE_SYMLINKS": "1"})))
    request = PullRequest(text, include=include)
    return app.cache.folder(pull(app, request, progress=NoProgress(), notify=lambda _: None).artifact.repo)
