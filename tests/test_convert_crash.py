"""The crash loop over a conversion: the Nth change of the disk fails, N = 1, 2, 3… until it goes through."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcache.app.compose import compose
from hubcache.app.converting import ConvertRequest, convert
from hubcache.app.usecases import NoProgress, PullRequest, pull
from hubcache.core.artifact import RepoId
from hubcache.errors import CacheError, DiskFull
from tests.support.faultydisk import BROKEN, FULL, FaultyDisk, Killed
from tests.support.goldens import golden
from tests.support.puller import Puller
from tests.support.wholeness import faults, unverified

pytestmark = [pytest.mark.slow, pytest.mark.train]

NAME = "org/palm"
MOST = 400
KILLS, ERRORS = 2, 7
"""Every how many-th change is tried, for the sake of time; 1 and 1 go through as well."""


@pytest.fixture(autouse=True)
def _no_disk_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(params=["links", "real files"])
def published(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, bool | None]:
    """A cache that holds an original as it was published, and whether it has links."""
    links = None if request.param == "links" else False
    cache = tmp_path / "published" / "hub"
    app = compose(Puller.into(cache, symlinks=links).settings)
    archive = golden("sofa/tarballs/chinese-palm-base.tar.gz")
    request_ = PullRequest(str(archive), stored_as=NAME, convert=False)
    pull(app, request_, progress=NoProgress(), notify=lambda _: None)
    return cache, links


def converted(cache: Path, links: bool | None) -> Path:
    return convert(compose(Puller.into(cache, symlinks=links).settings), ConvertRequest(NAME)).path


def every_change(published: tuple[Path, bool | None], folder: Path, error: int | None, *, step: int) -> Iterator[Path]:
    """Convert in a copy of the cache for N = 1, 2, 3…, and yield each copy in which it failed."""
    for at in range(1, MOST, step):
        cache = folder / str(at) / "hub"
        shutil.copytree(published[0], cache, symlinks=True)
        caught: BaseException | None = None
        with FaultyDisk(folder, at, error) as disk:
            try:
                converted(cache, published[1])
            except (Killed, CacheError) as failure:
                caught = failure
        if not disk.failed:
            assert caught is None
            return
        assert error != FULL or isinstance(caught, DiskFull | Killed | None), (cache, caught)
        yield cache
        shutil.rmtree(cache)
    raise AssertionError(f"no conversion went through in {MOST} changes")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("error", "step"), [(None, KILLS), (BROKEN, ERRORS), (FULL, ERRORS)])
def test_a_conversion_that_fails_anywhere_leaves_the_cache_whole_and_the_next_run_completes_it(
    published: tuple[Path, bool | None], tmp_path: Path, error: int | None, step: int
) -> None:
    good = tmp_path / "good" / "hub"
    shutil.copytree(published[0], good, symlinks=True)
    commit = converted(good, published[1]).name
    for cache in every_change(published, tmp_path, error, step=step):
        assert faults(cache) == [], cache
        original = (cache / f"models--{NAME.replace('/', '--')}/refs/original").read_text()
        folder = compose(Puller.into(cache).settings).cache.folder(RepoId.parse(NAME))
        assert folder.refs()["main"] in {original, commit}
        snapshot = converted(cache, published[1])
        assert (snapshot.name, unverified(snapshot), faults(cache)) == (commit, [], []), cache
        assert list(folder.path.glob(".staging/*")) == []
