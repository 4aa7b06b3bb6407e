"""Adopting, cut short at any change of the disk or by kill -9: no file is lost, and the next run ends it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcache.app.adopting import AdoptRequest, adopt, plan_adoption
from hubcache.app.progress import NoProgress
from hubcache.core.adoptable import Mode
from hubcache.errors import CacheError
from tests.support.commandline import files_of
from tests.support.faultydisk import BROKEN, FULL, FaultyDisk, Killed
from tests.support.otherlayouts import make_ollama, write_files
from tests.support.puller import Puller
from tests.support.waiting import until
from tests.support.wholeness import digest, faults, unverified

MB = 1 << 20
MOST = 400
KILLS, ERRORS = 2, 7
"""Every how many-th change is tried, for the sake of time; 1 and 1 go through as well."""
TENSORS = bytes(range(256)) * 300
FILES = {"config.json": b"{}", "a/same.txt": b"same", "b/same.txt": b"same", "model.safetensors": TENSORS}
MODES: list[Mode] = ["copy", "link", "move"]

pytestmark = pytest.mark.slow


def adopted(cache: Path, source: Path, mode: Mode, *, symlinks: bool = True) -> Path:
    """Adopt what is at the source, in this process; the index and the journal stand below the cache's folder."""
    app = Puller.into(cache, symlinks=None if symlinks else False).app
    plan = plan_adoption(app, AdoptRequest((source,), mode=mode), NoProgress())
    path = adopt(app, plan.adoptions[0], lambda _: None).path
    assert path is not None
    return path


def every_change(folder: Path, mode: Mode, error: int | None, *, symlinks: bool) -> Iterator[tuple[Path, Path]]:
    """Adopt a folder of its own into a cache of its own, N = 1, 2, 3…; yield both after the Nth change failed."""
    for at in range(1, MOST, KILLS if error is None else ERRORS):
        cache, source = folder / str(at) / "hub", write_files(folder / str(at) / "saved", FILES)
        with FaultyDisk(folder, at, error) as disk:
            try:
                adopted(cache, source, mode, symlinks=symlinks)
            except (Killed, CacheError):
                assert disk.failed
        if not disk.failed:
            return
        yield cache, source
        shutil.rmtree(cache.parent)
    raise AssertionError(f"no adoption went through in {MOST} changes")


def kept(cache: Path, source: Path) -> set[bytes]:
    """Read all contents that stand in the source, and those that a snapshot of the cache leads to."""
    snapshots = cache.glob("*/snapshots/*") if cache.exists() else ()
    return {content for top in (source, *snapshots) for content in files_of(top).values()}


@pytest.fixture(autouse=True)
def _no_disk_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every call counts as a change, but no disk has to turn for it.
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("symlinks", [True, False], ids=["links", "real files"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("error", [None, BROKEN, FULL], ids=["kill", "broken", "full"])
def test_at_any_change_the_cache_is_whole_nothing_is_lost_and_the_next_run_ends_it(
    mode: Mode, error: int | None, symlinks: bool, tmp_path: Path
) -> None:
    commit = adopted(tmp_path / "good/hub", write_files(tmp_path / "good/saved", FILES), mode, symlinks=symlinks).name
    for cache, source in every_change(tmp_path, mode, error, symlinks=symlinks):
        assert faults(cache) == [], cache
        assert kept(cache, source) == set(FILES.values()), cache
        # Only where a part was moved already, the rest is another folder by now.
        if files_of(source) == FILES:
            snapshot = adopted(cache, source, mode, symlinks=symlinks)
            assert (snapshot.name, unverified(snapshot), faults(cache)) == (commit, [], []), cache
            assert source.exists() == (mode != "move")


def test_what_a_kill_left_in_the_cache_is_swept_by_the_next_run(tmp_path: Path) -> None:
    for cache, source in every_change(tmp_path, "copy", None, symlinks=True):
        adopted(cache, source, "copy")
        assert [file for file in cache.rglob("*.tmp") if ".staging" in file.parts] == []


# -- real processes


def started(cache: Path, source: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hubcache_cli.main", "adopt", str(source), "--yes", "--quiet", *options]
    environ = {"PATH": os.environ["PATH"], "HOME": str(cache.parent), "HF_HUB_CACHE": str(cache)}
    return subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def killed(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(60)


def test_an_adoption_killed_while_it_copies_is_ended_by_the_next_one(tmp_path: Path) -> None:
    cache, content = tmp_path / "hub", os.urandom(256 * MB)
    source = write_files(tmp_path / "saved", {"config.json": b"{}", "model.safetensors": content})
    process = started(cache, source, "--copy")
    until(lambda: any(f.stat().st_size > MB for f in cache.glob("*/.staging/*/.*.tmp")), "the copy to begin")
    killed(process)
    assert (faults(cache), source.joinpath("model.safetensors").stat().st_size) == ([], len(content))
    assert started(cache, source, "--copy").wait(120) == 0
    assert (faults(cache), list(cache.glob("*/.staging/*/*"))) == ([], [])


def test_a_move_killed_while_it_removes_has_lost_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    files = {f"part-{n:04}.bin": b"%d" % n for n in range(1500)}
    source = write_files(tmp_path / "saved", files)
    process = started(cache, source, "--move")
    until(lambda: len(list(source.iterdir())) < len(files), "the first file to be taken away", seconds=60)
    killed(process)
    assert faults(cache) == []
    (snapshot,) = cache.glob("*/snapshots/*")
    assert files_of(snapshot) == files


def test_a_move_killed_while_it_publishes_has_lost_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    files = {f"part-{n:04}.bin": b"%d" % n for n in range(1500)}
    source = write_files(tmp_path / "saved", files)
    process = started(cache, source, "--move")
    until(lambda: any(cache.glob("*/blobs/*")), "the first blob", seconds=60)
    killed(process)
    assert (faults(cache), files_of(source)) == ([], files)
    assert started(cache, source, "--move").wait(120) == 0
    (snapshot,) = cache.glob("*/snapshots/*")
    assert (files_of(snapshot), source.exists()) == (files, False)


def test_two_adoptions_of_the_same_folder_at_once_end_in_one_commit(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    source = write_files(tmp_path / "saved", {"config.json": b"{}", "model.safetensors": os.urandom(40 * MB)})
    processes = [started(cache, source, "--copy") for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert (faults(cache), len(list(cache.glob("*/snapshots/*")))) == ([], 1)


def test_a_store_is_untouched_whatever_fails(tmp_path: Path) -> None:
    for at in range(1, 40, 3):
        store = make_ollama(tmp_path / str(at) / "models", "tiny", "latest", {"model": b"x" * 1000, "license": b"MIT"})
        before = files_of(store)
        with FaultyDisk(tmp_path, at, BROKEN) as disk:
            try:
                adopted(tmp_path / str(at) / "hub", store, "auto")
            except CacheError:
                assert disk.failed
        assert files_of(store) == before
        assert all(digest(f.read_bytes(), 64) == f.name.removeprefix("sha256-") for f in store.glob("blobs/*"))
