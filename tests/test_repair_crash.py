"""A repair whose Nth change of the disk fails, or that is killed: nothing is lost, and the next one completes it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hubcache import crew, fetch
from hubcache.cache.folder import RepoFolder
from hubcache.core.artifact import RepoId
from tests.support.commandline import HUBCACHE, CommandLine, files_of
from tests.support.damage import (
    FILES,
    NAME,
    SHA256,
    WEIGHTS,
    Damage,
    commit_of,
    cut_a_blob_short,
    edit_a_file,
    end_a_ref_with_a_newline,
    flip_a_bit,
    link_to_another_blob,
    list_another_size,
    lose_a_blob,
    name_a_blob_otherwise,
    plant_a_file,
    snapshot,
    spoil_the_listing,
    tree,
)
from tests.support.faultydisk import BROKEN, FULL, FaultyDisk, Killed
from tests.support.loophub import LoopHub
from tests.support.mending import mend, problems
from tests.support.pulling import pull_into
from tests.support.waiting import until
from tests.support.wholeness import digest, faults, partial_bytes, unverified

MOST = 200
MB = 1 << 20
TIERS = {None: 1, BROKEN: 3, FULL: 3}
"""Every how many-th change is tried, for the sake of time."""

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")]


def spoil_much(folder: RepoFolder) -> str:
    for damage in (flip_a_bit, edit_a_file, plant_a_file, name_a_blob_otherwise, end_a_ref_with_a_newline):
        damage(folder)
    return ""


def spoil_what_is_in_the_store(folder: RepoFolder) -> str:
    """Damage a payload that another repo of the cache uses as well."""
    blob = folder.path / "blobs" / SHA256
    stored = folder.root / "blobs" / "ab" / ("ab" * 32)
    stored.parent.mkdir(parents=True)
    folder.root.joinpath("blobs", ".huggingface-shared-blobs").write_text("1\n")
    stored.write_bytes(b"x" * len(WEIGHTS))
    blob.unlink()
    blob.symlink_to(f"../../blobs/ab/{stored.name}")
    shutil.copytree(folder.path, folder.root / "models--org--other", symlinks=True)
    return ""


def lose_a_row_of_the_listing(folder: RepoFolder) -> str:
    listing = json.loads(tree(folder).read_bytes())
    del listing["files"]["config.json"]
    tree(folder).write_text(json.dumps(listing))
    return ""


def put_a_folder_in_the_listings_place(folder: RepoFolder) -> str:
    place = tree(folder)
    place.unlink()
    place.mkdir()
    return ""


def lose_the_snapshot(folder: RepoFolder) -> str:
    shutil.rmtree(snapshot(folder))
    return ""


DAMAGES: list[Damage] = [
    spoil_much, cut_a_blob_short, lose_a_blob, link_to_another_blob, list_another_size, spoil_the_listing,
    spoil_what_is_in_the_store, lose_a_row_of_the_listing,
]  # fmt: skip


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopHub]:
    with LoopHub() as hub:
        hub.add_repo(NAME, FILES)
        yield hub


@pytest.fixture(scope="module")
def sound(hub: LoopHub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("sound") / "hub"
    pull_into(cache, hub, NAME)
    return cache


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SMALL", 10_000)
    monkeypatch.setattr(fetch, "SMALLEST_PIECE", 30_000)
    monkeypatch.setattr(crew, "PATIENCE", 0.2)
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def contents(folder: RepoFolder) -> set[str]:
    """Name every bytes that a repo's folder and the shared store hold, wherever they stand, by their digest."""
    files = [file for top in (folder.path, folder.root / "blobs") for file in top.rglob("*") if file.is_file()]
    kept = [file for file in files if file.parent.name in {"blobs", "quarantine", "ab"} or "snapshots" in file.parts]
    return {digest(file.read_bytes(), 64) for file in kept if file.suffix not in {".json", ".incomplete", ".refs"}}


def lost(before: set[str], folder: RepoFolder) -> set[str]:
    return before - contents(folder)


def dead_refs(folder: RepoFolder) -> list[str]:
    """List the refs that mean a commit without a snapshot."""
    return [name for name, commit in folder.refs().items() if not folder.snapshot_path(commit).is_dir()]


def every_change(
    sound: Path, folder: Path, damage: Damage, endpoint: str, error: int | None
) -> Iterator[tuple[RepoFolder, set[str]]]:
    """Repair a damaged copy for N = 1, 2, 3…, and yield each after the failure, with what it held before."""
    for at in range(1, MOST, TIERS[error]):
        shutil.copytree(sound, folder / str(at) / "hub", symlinks=True)
        repo = RepoFolder(folder / str(at) / "hub", RepoId("hf", "model", NAME))
        damage(repo)
        before = contents(repo)
        with FaultyDisk(folder, at, error) as disk, suppress(Killed):
            mend(repo, endpoint)
        if not disk.failed:
            return
        yield repo, before
    raise AssertionError(f"no repair went through in {MOST} changes")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("error", [None, BROKEN, FULL], ids=["killed", "broken", "full"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_repair_that_fails_at_any_change_loses_nothing_and_the_next_one_completes_it(
    sound: Path, hub: LoopHub, damage: Damage, error: int | None, tmp_path: Path
) -> None:
    for folder, before in every_change(sound, tmp_path, damage, hub.endpoint, error):
        assert (lost(before, folder), dead_refs(folder)) == (set(), []), folder.root
        mend(folder, hub.endpoint)
        assert (problems(folder), lost(before, folder)) == ([], set()), folder.root
        assert unverified(folder.snapshot_path(commit_of(folder))) == [], folder.root
        if not folder.root.joinpath("models--org--other").exists():  # whose damage is its own
            assert faults(folder.root) == [], folder.root


@pytest.mark.parametrize("error", [None, BROKEN, FULL], ids=["killed", "broken", "full"])
@pytest.mark.parametrize("damage", [lose_the_snapshot, put_a_folder_in_the_listings_place])
def test_every_file_is_in_its_place_after_the_next_repair(
    sound: Path, hub: LoopHub, damage: Damage, error: int | None, tmp_path: Path
) -> None:
    """Here the damage itself leaves a dead ref, or a failure no listing, as if there had never been one."""
    for folder, before in every_change(sound, tmp_path, damage, hub.endpoint, error):
        mend(folder, hub.endpoint)
        assert (problems(folder), lost(before, folder), faults(folder.root)) == ([], set(), []), folder.root
        assert files_of(snapshot(folder)) == FILES, folder.root


def test_a_damaged_blob_is_never_among_the_links_once_the_repair_began_on_it(
    sound: Path, hub: LoopHub, tmp_path: Path
) -> None:
    for folder, _ in every_change(sound, tmp_path, flip_a_bit, hub.endpoint, None):
        for link in folder.snapshot_path(commit_of(folder)).rglob("*"):
            is_dead = link.is_symlink() and not link.exists()
            assert not is_dead, link


# -- a real process


def test_a_repair_that_is_killed_while_it_fetches_goes_on_with_the_rest(tmp_path: Path) -> None:
    large = os.urandom(6 * MB)
    with LoopHub() as hub:
        hub.add_repo("org/large", {"large.bin": large, "config.json": FILES["config.json"]})
        folder = pull_into(tmp_path / "hub", hub, "org/large")
        [blob] = [file for file in (folder.path / "blobs").iterdir() if file.stat().st_size == len(large)]
        blob.write_bytes(b"x" * len(large))
        hub.clear()
        hub.stall["large.bin"] = 2 * MB
        hubcache = CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint, HF_HUB_DOWNLOAD_TIMEOUT="60")
        command = [str(HUBCACHE), "verify", "--repair", "--yes"]
        with subprocess.Popen(command, env=hubcache.environ, stderr=subprocess.DEVNULL) as process:
            until(lambda: partial_bytes(folder.root) >= 2 * MB, "the bytes before the silence")
            process.send_signal(signal.SIGKILL)
        assert faults(folder.root) == []
        hub.stop()
        hub.stall.clear()
        hub.start()
        told = hubcache("verify", "--repair", "--yes")
        assert (told.code, unverified(folder.snapshot_path(commit_of(folder)))) == (0, []), told.err
        assert any(file.read_bytes() == b"x" * len(large) for file in folder.path.glob("quarantine/*"))
