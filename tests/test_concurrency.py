"""Two real processes that pull the same: the bytes come once, and both end right."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archives import pack
from tests.support.goldens import golden
from tests.support.loophub import LoopHub
from tests.support.loopzoo import LoopZoo
from tests.support.objectstore import ObjectStore
from tests.support.puller import Process, asked_bytes, bodies
from tests.support.waiting import until
from tests.support.wholeness import faults, partial_bytes, unverified

MB = 1 << 20
STUB = "zoo:nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/pruned90-none"
LOCKLESS = """
import contextlib, sys
from hubcache.cache import locks
locks.held = contextlib.contextmanager(lambda path, **_: (yield False))
from hubcache.cache import writer
writer.held = locks.held
from hubcache_cli.main import main
main(["pull", *sys.argv[1:]])
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def hub() -> Iterator[LoopHub]:
    with LoopHub() as server:
        server.add_repo("org/m", {"config.json": b"{}", "small.bin": os.urandom(MB), "large.bin": os.urandom(12 * MB)})
        server.rate = 8 * MB
        yield server


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with ObjectStore({"m.tar.gz": pack({"m/config.json": b"{}", "m/w.bin": os.urandom(4 * MB)}, ".tar.gz")}) as server:
        server.rate = 4 * MB
        yield server


def ended(processes: list[Process], cache: Path) -> set[str]:
    """Wait for all of them; return the snapshots they print."""
    printed = set()
    for process in processes:
        code, out, err = process.wait()
        assert code == 0, err
        printed.add(out.strip())
    assert faults(cache) == []
    return printed


def test_two_processes_that_pull_one_repo_fetch_each_blob_once(hub: LoopHub, tmp_path: Path) -> None:
    cache, environ = tmp_path / "hub", {"HF_ENDPOINT": hub.endpoint}
    snapshots = ended([Process(cache, "org/m", environ=environ) for _ in range(2)], cache)
    assert len(snapshots) == 1
    assert unverified(Path(snapshots.pop())) == []
    assert set(Counter(request.path for request in hub.requests if "resolve-cache" in request.path).values()) == {1}
    assert asked_bytes(hub, 12 * MB, containing=large(hub)) == 12 * MB


def test_two_processes_that_pull_one_archive_fetch_it_once(store: ObjectStore, tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    snapshots = ended([Process(cache, store.url("m.tar.gz")) for _ in range(2)], cache)
    assert len(snapshots) == 1
    assert unverified(Path(snapshots.pop())) == []
    assert len([asked for asked in bodies(store) if asked != "bytes=0-0"]) == 1


@pytest.mark.train
def test_two_processes_that_pull_one_original_fetch_it_once_and_mean_one_conversion(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    with ObjectStore({"chinese-palm-base.tar.gz": golden("sofa/tarballs/chinese-palm-base.tar.gz")}) as store:
        store.rate = MB // 2
        snapshots = ended([Process(cache, store.url("chinese-palm-base.tar.gz")) for _ in range(2)], cache)
        assert len([asked for asked in bodies(store) if asked != "bytes=0-0"]) == 1
    [snapshot] = snapshots
    repo = cache / "models--127-0-0-1--chinese-palm-base"
    assert (repo / "refs/main").read_text() == Path(snapshot).name != (repo / "refs/original").read_text()
    assert unverified(Path(snapshot)) == []


def test_two_processes_that_pull_one_zoo_model_fetch_each_file_once(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    with LoopZoo() as zoo:
        zoo.add_model(STUB, {"training/config.json": b"{}", "training/model.bin": os.urandom(2 * MB)})
        zoo.rate = 4 * MB
        environ = {"SPARSEZOO_API_URL": zoo.endpoint}
        snapshots = ended([Process(cache, STUB, environ=environ) for _ in range(2)], cache)
        assert len(snapshots) == 1
        assert len(bodies(zoo)) == 2


def test_a_waiting_process_takes_over_the_bytes_of_one_that_is_killed(hub: LoopHub, tmp_path: Path) -> None:
    cache, environ = tmp_path / "hub", {"HF_ENDPOINT": hub.endpoint}
    first = Process(cache, "org/m", environ=environ)
    until(lambda: partial_bytes(cache) >= 4 * MB, "4 MB")
    second = Process(cache, "org/m", environ=environ)
    until(lambda: len([r for r in hub.requests if "/tree/" in r.path or "/revision/" in r.path]) >= 3, "the second")
    first.kill()
    (snapshot,) = ended([second], cache)
    assert unverified(Path(snapshot)) == []
    assert asked_bytes(hub, 12 * MB, containing=large(hub)) <= 2 * 12 * MB - 3 * MB


def large(hub: LoopHub) -> str:
    return str(hub.files("org/m")["large.bin"].sha256)


@pytest.mark.parametrize("what", ["repo", "archive"])
def test_a_process_without_locks_beside_two_with_them_ends_right(
    hub: LoopHub, store: ObjectStore, what: str, tmp_path: Path
) -> None:
    cache, environ = tmp_path / "hub", {"HF_ENDPOINT": hub.endpoint}
    text = "org/m" if what == "repo" else store.url("m.tar.gz")
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HUB_CACHE": str(cache)} | environ
    lockless = subprocess.Popen(
        [sys.executable, "-c", LOCKLESS, text], cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True
    )
    locked = [Process(cache, text, environ=environ) for _ in range(2)]
    (snapshot,) = ended(locked, cache)
    _, err = lockless.communicate(timeout=60)
    assert lockless.returncode == 0, err
    assert (unverified(Path(snapshot)), faults(cache)) == ([], [])
    assert not list(cache.rglob("*.incomplete"))
