"""The crash loop: the Nth change of the disk fails, N = 1, 2, 3… until a pull goes through."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hubcache import crew, fetch
from hubcache.errors import CacheError, DiskFull
from tests.support.archives import pack
from tests.support.faultydisk import BROKEN, FULL, FaultyDisk, Killed
from tests.support.loophub import LoopHub
from tests.support.loopzoo import LoopZoo
from tests.support.objectstore import ObjectStore
from tests.support.puller import Puller
from tests.support.wholeness import faults, unverified

STUB = "zoo:nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/pruned90-none"
TENSORS = bytes(range(256)) * 300
MOST = 400
KILLS, ERRORS = 3, 9
"""Every how many-th change is tried, for the sake of time; 1 and 1 go through as well."""

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")]

Pull = Callable[[Path], Path]


@pytest.fixture(scope="module")
def upstream() -> Iterator[dict[str, str]]:
    hub, zoo, store = LoopHub(), LoopZoo(), ObjectStore()
    files = {"config.json": b"{}", "a/same.txt": b"same", "b/same.txt": b"same", "model.safetensors": TENSORS}
    hub.add_repo("org/model", files)
    zoo.add_model(STUB, {"training/config.json": b"{}", "training/model.bin": TENSORS, "recipe_original.md": b"r"})
    store.put("model.tar.gz", pack({"model/config.json": b"{}", "model/weights.bin": os.urandom(60_000)}, ".tar.gz"))
    with hub, zoo, store:
        yield {
            "hub": hub.endpoint,
            "zoo": zoo.endpoint,
            "org/model": "org/model",
            "archive": store.url("model.tar.gz"),
            "stub": STUB,
        }


@pytest.fixture(autouse=True)
def _by_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SMALL", 10_000)
    monkeypatch.setattr(fetch, "SMALLEST_PIECE", 30_000)
    monkeypatch.setattr(crew, "PATIENCE", 0.2)
    # Every call counts as a change, but no disk has to turn for it.
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(params=["links", "real files"])
def symlinks(request: pytest.FixtureRequest) -> bool:
    return request.param == "links"


@pytest.fixture(params=["org/model", "archive", "stub"])
def pulls(request: pytest.FixtureRequest, upstream: dict[str, str], symlinks: bool) -> Pull:
    def pulled(cache: Path) -> Path:
        links = None if symlinks else False
        puller = Puller.into(cache, upstream["hub"], zoo_api=upstream["zoo"], symlinks=links)
        return puller(upstream[request.param]).path

    return pulled


def every_change(pulled: Pull, folder: Path, error: int | None, *, step: int) -> Iterator[tuple[Path, BaseException]]:
    """Pull into a cache of its own for N = 1, 2, 3…, and yield each with what came of the failure."""
    for at in range(1, MOST, step):
        cache = folder / str(at) / "hub"
        caught: BaseException | None = None
        with FaultyDisk(folder, at, error) as disk:
            try:
                pulled(cache)
            except (Killed, CacheError) as failure:
                caught = failure
        if not disk.failed:
            assert caught is None
            return
        yield cache, caught or Killed()
    raise AssertionError(f"no pull went through in {MOST} changes")


@pytest.mark.timeout(120)
def test_a_kill_at_any_change_leaves_the_cache_whole_and_the_next_run_completes_it(pulls: Pull, tmp_path: Path) -> None:
    commit = pulls(tmp_path / "good").name
    for cache, _ in every_change(pulls, tmp_path, None, step=KILLS):
        assert faults(cache) == [], cache
        snapshot = pulls(cache)
        assert (snapshot.name, unverified(snapshot), faults(cache)) == (commit, [], []), cache


def test_a_failing_disk_leaves_the_cache_whole_and_the_next_run_completes_it(pulls: Pull, tmp_path: Path) -> None:
    commit = pulls(tmp_path / "good").name
    for cache, _ in every_change(pulls, tmp_path, BROKEN, step=ERRORS):
        assert faults(cache) == [], cache
        snapshot = pulls(cache)
        assert (snapshot.name, unverified(snapshot), faults(cache)) == (commit, [], []), cache


def test_a_full_disk_is_told_as_one_and_leaves_the_cache_whole(pulls: Pull, tmp_path: Path) -> None:
    commit = pulls(tmp_path / "good").name
    for cache, caught in every_change(pulls, tmp_path, FULL, step=ERRORS):
        assert isinstance(caught, DiskFull | Killed), (cache, caught)
        assert faults(cache) == [], cache
        snapshot = pulls(cache)
        assert (snapshot.name, unverified(snapshot), faults(cache)) == (commit, [], []), cache
