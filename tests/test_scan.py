"""What `scan` says of repos, sound and damaged, is what stands on the disk; whether the bytes are right is verify's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from hubcache.cache.folder import RepoFolder
from hubcache.cache.scan import RepoSummary, scan, scan_commits
from hubcache.errors import CacheError
from tests.support.loophub import LoopHub
from tests.support.pulling import pull_into

NAME = "org/name"
WEIGHTS = b"weights" * 100
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "sub/deep/copy.safetensors": WEIGHTS, "a.txt": b"a"}
SIZE = len(WEIGHTS) + 3


@pytest.fixture
def hub() -> Iterator[LoopHub]:
    with LoopHub() as hub:
        hub.add_repo(NAME, FILES)
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def folder(hub: LoopHub, cache: Path) -> RepoFolder:
    return pull_into(cache, hub, NAME)


def only(cache: Path) -> RepoSummary:
    [summary] = scan(cache)
    return summary


def commit_of(folder: RepoFolder) -> str:
    return folder.commits()[0]


def test_a_blob_that_two_files_share_counts_once(folder: RepoFolder) -> None:
    assert only(folder.root).size == SIZE


def test_every_path_is_a_file(folder: RepoFolder) -> None:
    assert only(folder.root).files == len(FILES)


def test_a_path_in_two_commits_is_one_file(hub: LoopHub, folder: RepoFolder) -> None:
    hub.add_commit(NAME, {"a.txt": b"another", "new.txt": b"new"})
    pull_into(folder.root, hub, NAME)
    assert only(folder.root).files == len(FILES) + 1


def test_real_files_count_where_there_are_no_links(hub: LoopHub, cache: Path) -> None:
    pull_into(cache, hub, NAME, links=False)
    assert (only(cache).size, only(cache).files) == (SIZE + len(WEIGHTS), len(FILES))


def test_a_blob_in_the_shared_store_counts_at_its_real_size(folder: RepoFolder) -> None:
    blob = max((folder.path / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    store = folder.root / "blobs" / "ab"
    store.mkdir(parents=True)
    os.replace(blob, store / ("ab" * 32))
    blob.symlink_to(f"../../blobs/ab/{'ab' * 32}")
    assert only(folder.root).size == SIZE


def test_refs_mean_commits_nested_names_included(hub: LoopHub, folder: RepoFolder) -> None:
    second = hub.add_commit(NAME, {"a.txt": b"b"}, revision="refs/pr/1")
    pull_into(folder.root, hub, f"{NAME}@refs/pr/1")
    first = next(commit for commit in folder.commits() if commit != second)
    assert only(folder.root).refs == {"main": first, "refs/pr/1": second}


def test_the_commits_are_those_with_a_snapshot(folder: RepoFolder) -> None:
    assert only(folder.root).commits == tuple(folder.commits())


def test_partial_files_are_counted_apart(folder: RepoFolder) -> None:
    (folder.path / "blobs" / f"{'0' * 64}.01234567.incomplete").write_bytes(b"x" * 5000)
    summary = only(folder.root)
    assert (summary.size, summary.partial_files, summary.partial_size) == (SIZE, 1, 5000)


def test_the_hole_in_a_partial_file_takes_no_room(folder: RepoFolder) -> None:
    with (folder.path / "blobs" / f"{'0' * 64}.01234567.incomplete").open("wb") as file:
        file.seek(100 << 20)
        file.write(b"end")
    assert only(folder.root).partial_size < 1 << 20


def test_a_journal_is_no_partial_file_of_its_own(folder: RepoFolder) -> None:
    (folder.path / "blobs" / f"{'0' * 64}.01234567.ranges.incomplete").write_bytes(b"x")
    assert only(folder.root).partial_files == 0


def test_staged_files_wait_to_be_resumed_too(folder: RepoFolder) -> None:
    stage = folder.path / ".staging" / "key"
    stage.mkdir(parents=True)
    (stage / "archive.tar.gz").write_bytes(b"x" * 70)
    assert (only(folder.root).partial_files, only(folder.root).partial_size) == (1, 70)


def test_the_newest_access_is_the_last_use(folder: RepoFolder) -> None:
    os.utime(next((folder.path / "blobs").iterdir()), (4_000_000_000, 1_000))
    assert only(folder.root).last_used == 4_000_000_000


def test_the_newest_blob_is_the_last_change(folder: RepoFolder) -> None:
    for blob in (folder.path / "blobs").iterdir():
        os.utime(blob, (1_000, 2_000))
    assert only(folder.root).last_modified == 2_000


def test_a_repo_without_files_was_used_when_its_folder_was(folder: RepoFolder) -> None:
    for blob in (folder.path / "blobs").iterdir():
        blob.unlink()
    os.utime(folder.path, (1_234, 1_234))
    assert only(folder.root).last_modified == 1_234


def test_a_sound_repo_has_no_problem(folder: RepoFolder) -> None:
    assert only(folder.root).problem is None


def test_repos_come_by_name_and_other_folders_do_not(hub: LoopHub, cache: Path) -> None:
    hub.add_repo("a/b", {"x": b"x"})
    hub.add_repo("data/set", {"x": b"x"}, kind="dataset")
    for name in (NAME, "a/b", "hf:datasets/data/set"):
        pull_into(cache, hub, name)
    (cache / "kernels--a--b").mkdir()
    (cache / "version.txt").write_text("1")
    assert [str(summary.repo) for summary in scan(cache)] == ["datasets/data/set", "a/b", NAME]


def test_what_huggingface_hub_counts_is_what_scan_counts(hub: LoopHub, folder: RepoFolder) -> None:
    hub.add_commit(NAME, {"a.txt": b"longer than before"})
    pull_into(folder.root, hub, NAME)
    [theirs] = scan_cache_dir(folder.root).repos
    ours = only(folder.root)
    assert (ours.repo.name, ours.size, set(ours.commits)) == (
        theirs.repo_id,
        theirs.size_on_disk,
        {revision.commit_hash for revision in theirs.revisions},
    )


def test_each_commit_has_its_own_size_files_and_refs(hub: LoopHub, folder: RepoFolder) -> None:
    first = commit_of(folder)
    second = hub.add_commit(NAME, {"more.txt": b"12345"})
    pull_into(folder.root, hub, NAME)
    told = {one.commit: (one.size, one.files, one.refs) for one in scan_commits(only(folder.root))}
    assert told == {first: (SIZE, len(FILES), ()), second: (SIZE + 5, len(FILES) + 1, ("main",))}


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list(scan(tmp_path / "nowhere")) == []


def test_a_cache_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("")
    with pytest.raises(CacheError):
        list(scan(tmp_path / "hub"))


def drop_snapshot(folder: RepoFolder) -> None:
    folder.snapshot_path(commit_of(folder)).rename(folder.path / "elsewhere")


def add_newline(folder: RepoFolder) -> None:
    folder.ref_path("main").write_text(commit_of(folder) + "\n")


def spoil_ref(folder: RepoFolder) -> None:
    folder.ref_path("main").write_text("local-1")


def cut_blob_loose(folder: RepoFolder) -> None:
    blob = next((folder.path / "blobs").iterdir())
    blob.unlink()
    blob.symlink_to("../../blobs/ab/gone")


def turn_snapshots_into_a_file(folder: RepoFolder) -> None:
    (folder.path / "snapshots").rename(folder.path / "elsewhere")
    (folder.path / "snapshots").write_text("")


def turn_repo_into_a_file(folder: RepoFolder) -> None:
    folder.path.rename(folder.root / "elsewhere")
    folder.path.write_text("")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (drop_snapshot, "no snapshot"),
        (add_newline, "more than the 40 bytes"),
        (spoil_ref, "holds no commit"),
        (cut_blob_loose, "cannot be read"),
        (turn_snapshots_into_a_file, "snapshots cannot be read"),
        (turn_repo_into_a_file, "cannot be listed"),
    ],
)
def test_damage_is_told_and_not_raised(folder: RepoFolder, damage: Callable[[RepoFolder], None], told: str) -> None:
    damage(folder)
    assert told in (only(folder.root).problem or "")


def test_damage_to_one_part_hides_no_other(folder: RepoFolder) -> None:
    turn_snapshots_into_a_file(folder)
    assert only(folder.root).size == SIZE
