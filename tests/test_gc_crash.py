"""The crash loop over gc and undo: the Nth change of the disk fails, N = 1, 2, 3…; and real processes, killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hubcache.app.collecting import plan_collection
from hubcache.cache.collect import put_back, remove
from hubcache.cache.trash import FOLDER
from hubcache.core.gc import Budget
from hubcache.errors import CacheError, NotFound
from tests.support.collecting import DAY, MadeCache, Standing, age, paths, standing
from tests.support.commandline import CommandLine
from tests.support.faultydisk import BROKEN, FULL, FaultyDisk, Killed
from tests.support.waiting import until
from tests.support.wholeness import faults, unverified

pytestmark = pytest.mark.slow

MOST = 400
KEPT = ("org/m", "b" * 40)


@pytest.fixture(autouse=True)
def _no_disk_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def made(tmp_path: Path) -> MadeCache:
    """A cache of which a gc takes an orphan, commits that share blobs, a whole repo, and shared payloads."""
    made = MadeCache(tmp_path / "made" / "hub")
    made.commit("org/m", "a", {"w.bin": b"weights", "sub/deep/old.txt": b"old"}, refs=("v1", "refs/pr/1"))
    made.commit("org/m", "b", {"w.bin": b"weights", "new.txt": b"new"}, refs=("main",))
    made.commit("org/n", "c", {"w.bin": b"shared", "x.bin": b"weights"}, refs=("main",))
    made.commit("org/o", "d", {"w.bin": b"shared"}, refs=("main", "dev"))
    made.commit("org/o", "e", {"w.bin": b"alone", "k.txt": b"k"}, refs=("kept",))
    made.share("ab", b"shared", "org/n", "org/o")
    made.share("cd", b"alone", "org/o")
    made.orphan("org/m", b"orphan")
    return made


def make_old(root: Path) -> None:
    """Make all of a cache old but for two commits; reading or copying a file has counted as use."""
    age(root, 90 * DAY)
    now = time.time()
    for name, commit in (("org/m", "b"), ("org/o", "e")):
        os.utime(MadeCache(root).folder(name).snapshot_path(commit * 40), (now, now))


def collect(root: Path, *, undo: bool = True, days: float = 0) -> None:
    now = time.time() + 1 + days * DAY
    remove(root, plan_collection(root, Budget(unused_for=30.0 * DAY, undo=undo), now=now))


def collect_for_good(root: Path) -> None:
    collect(root, undo=False)


def put_all_back(root: Path) -> None:
    while True:
        try:
            put_back(root)
        except NotFound:
            return


def every_change(
    made: MadeCache, folder: Path, run: Callable[[Path], None], error: int | None
) -> Iterator[tuple[Path, bool]]:
    """Run in a copy of the cache for N = 1, 2, 3…, and yield each copy with whether it was the last, unharmed one."""
    for at in range(1, MOST):
        root = folder / str(at) / "hub"
        shutil.copytree(made.root, root, symlinks=True)
        make_old(root)
        with FaultyDisk(folder, at, error) as disk:
            try:
                run(root)
            except (Killed, CacheError):
                assert disk.failed
        yield root, not disk.failed
        shutil.rmtree(root.parent)
        if not disk.failed:
            return
    raise AssertionError(f"it did not go through in {MOST} changes")


def lost(before: Standing, root: Path) -> set[str]:
    """Name the files that stood there and stand neither there nor in the trash; the store's own records excepted."""
    found = paths(standing(root))
    for files in (root / FOLDER).glob("*/files"):
        found |= paths(standing(files))
    return {path for path in paths(before) - found if not path.endswith(".refs")}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("error", [None, BROKEN, FULL], ids=["killed", "broken", "full"])
def test_a_gc_that_fails_anywhere_loses_nothing_and_can_be_undone(
    made: MadeCache, tmp_path: Path, error: int | None
) -> None:
    before = standing(made.root)
    assert faults(made.root) == []
    for root, _ in every_change(made, tmp_path, collect, error):
        assert faults(root) == [], root
        assert lost(before, root) == set(), root
        assert unverified(MadeCache(root).folder(KEPT[0]).snapshot_path(KEPT[1])) == [], root
        put_all_back(root)
        assert paths(standing(root)) == paths(before), root
        assert faults(root) == [], root


@pytest.mark.timeout(240)
def test_a_gc_that_failed_is_completed_by_the_next(made: MadeCache, tmp_path: Path) -> None:
    good = tmp_path / "good" / "hub"
    shutil.copytree(made.root, good, symlinks=True)
    make_old(good)
    collect(good)
    expected = paths(standing(good))
    assert {path.split("/")[0] for path in expected} == {"CACHEDIR.TAG", "blobs", "models--org--m", "models--org--o"}
    for root, _ in every_change(made, tmp_path, collect, None):
        collect(root, days=2)  # a payload that lost its last user waits for a day
        assert (paths(standing(root)), faults(root)) == (expected, []), root


@pytest.mark.timeout(240)
@pytest.mark.parametrize("error", [None, BROKEN], ids=["killed", "broken"])
def test_a_gc_for_good_that_fails_anywhere_keeps_what_it_was_to_keep(
    made: MadeCache, tmp_path: Path, error: int | None
) -> None:
    for root, _ in every_change(made, tmp_path, collect_for_good, error):
        assert faults(root) == [], root
        assert unverified(MadeCache(root).folder(KEPT[0]).snapshot_path(KEPT[1])) == [], root
        collect_for_good(root)
        assert list((root / FOLDER).glob("*")) == [], root


@pytest.mark.timeout(240)
@pytest.mark.parametrize("error", [None, BROKEN, FULL], ids=["killed", "broken", "full"])
def test_an_undo_that_fails_anywhere_is_completed_by_the_next(
    made: MadeCache, tmp_path: Path, error: int | None
) -> None:
    before = standing(made.root)
    make_old(made.root)
    collect(made.root)
    assert len(paths(before) - paths(standing(made.root))) == 20
    for root, _ in every_change(made, tmp_path, put_back, error):  # type: ignore[arg-type]
        assert faults(root) == [], root
        assert lost(before, root) == set(), root
        put_all_back(root)
        assert paths(standing(root)) == paths(before), root
        assert faults(root) == [], root


REMOVING = """
import sys
from hubcache_cli.main import main
main(sys.argv[1:])
"""


@pytest.fixture
def large(tmp_path: Path) -> MadeCache:
    """Two commits of 2,000 files each."""
    made = MadeCache(tmp_path / "hub")
    made.commit("org/m", "a", {f"{number}.txt": b"a%d" % number for number in range(2000)}, refs=("v1",))
    made.commit("org/m", "b", {f"{number}.txt": b"b%d" % number for number in range(2000)}, refs=("main",))
    return made


def killed_when(hubcache: CommandLine, condition: Callable[[], bool], *arguments: str) -> None:
    """Run a command and kill its process as soon as the condition holds."""
    command = [sys.executable, "-c", REMOVING, *arguments]
    process = subprocess.Popen(command, env=hubcache.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: condition() or process.poll() is not None, "the middle of it")
    process.kill()
    process.wait()


def moved(root: Path) -> int:
    return sum(1 for _ in (root / FOLDER).glob("*/files/*/blobs/*"))


@pytest.mark.parametrize("count", [1, 300, 1500])
def test_a_killed_removal_is_undone_without_a_loss(large: MadeCache, tmp_path: Path, count: int) -> None:
    hubcache, before = CommandLine(tmp_path), standing(large.root, times=False)
    killed_when(hubcache, lambda: moved(large.root) >= count, "rm", "org/m@v1", "--yes")
    assert faults(large.root) == []
    assert unverified(large.folder("org/m").snapshot_path("b" * 40)) == []
    assert hubcache("rm", "--undo").code == 0
    assert standing(large.root, times=False) == before


def test_a_killed_undo_is_completed_by_the_next(large: MadeCache, tmp_path: Path) -> None:
    hubcache, before = CommandLine(tmp_path), standing(large.root, times=False)
    hubcache("rm", "org/m@v1", "--yes")
    killed_when(hubcache, lambda: moved(large.root) <= 1000, "rm", "--undo")
    assert faults(large.root) == []
    hubcache("rm", "--undo")
    assert standing(large.root, times=False) == before


def test_a_killed_emptying_is_completed_by_the_next_gc(large: MadeCache, tmp_path: Path) -> None:
    hubcache = CommandLine(tmp_path)
    hubcache("rm", "org/m@v1", "--yes")
    killed_when(hubcache, lambda: moved(large.root) <= 1000, "gc", "--yes", "--no-undo")
    assert faults(large.root) == []
    hubcache("gc", "--yes", "--no-undo")
    assert list((large.root / FOLDER).glob("*")) == []
    assert unverified(large.folder("org/m").snapshot_path("b" * 40)) == []
