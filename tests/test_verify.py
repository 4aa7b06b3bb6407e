"""What is wrong in a repo is found, each thing once, and what is right is not suspected; the command is elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcache.app.usecases import NoProgress
from hubcache.cache.findings import Problem, Report
from hubcache.cache.folder import RepoFolder
from hubcache.cache.verify import verify_repo
from hubcache.core.artifact import RepoId
from tests.support.damage import (
    BLOBS,
    CONFIG,
    DAMAGES,
    FILES,
    NAME,
    WEIGHTS,
    Damage,
    commit_of,
    cut_a_blob_short,
    end_a_ref_with_a_newline,
    flip_a_bit,
    lose_a_blob,
    name_a_blob_otherwise,
    plant_a_file,
    snapshot,
    spoil_a_small_blob,
    tree,
)
from tests.support.loophub import LoopHub
from tests.support.pulling import pull_into


class Watching:
    """A progress that adds up what it is told."""

    def __init__(self) -> None:
        self.files = self.size = self.advanced = 0
        self.finished: list[str] = []

    def begin(self, files: int, size: int, /) -> None:
        self.files, self.size = files, size

    def advance(self, size: int, origin: str, /) -> None:
        self.advanced += size

    def finish_file(self, path: str, /) -> None:
        self.finished.append(path)


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopHub]:
    with LoopHub() as hub:
        hub.add_repo(NAME, FILES)
        yield hub


@pytest.fixture(scope="module")
def sound(hub: LoopHub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that pull filled, and that nobody touches."""
    cache = tmp_path_factory.mktemp("sound") / "hub"
    pull_into(cache, hub, NAME)
    return cache


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> RepoFolder:
    """A copy of it, to be damaged."""
    shutil.copytree(sound, tmp_path / "hub", symlinks=True)
    return RepoFolder(tmp_path / "hub", RepoId("hf", "model", NAME))


def verify(folder: RepoFolder, commit: str | None = None) -> Report:
    return verify_repo(folder, commit=commit, progress=NoProgress())


def found(problems: tuple[Problem, ...]) -> list[tuple[str, str]]:
    return [(problem.kind, problem.path) for problem in problems]


# -- what is right


def test_what_pull_wrote_is_whole(folder: RepoFolder) -> None:
    report = verify(folder)
    assert (report.problems, report.notes) == ((), ())


def test_each_blob_is_hashed_once(folder: RepoFolder) -> None:
    report = verify(folder)
    assert (report.checked_files, report.checked_size) == (BLOBS, len(WEIGHTS) + len(FILES["config.json"]) + 5)


def test_what_pull_wrote_without_links_is_whole(hub: LoopHub, tmp_path: Path) -> None:
    report = verify(pull_into(tmp_path / "hub", hub, NAME, links=False))
    assert (report.checked_files, report.problems, report.notes) == (len(FILES), (), ())


def test_a_pulled_folder_is_whole(hub: LoopHub, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.safetensors").write_bytes(WEIGHTS)
    report = verify(pull_into(tmp_path / "hub", hub, str(tmp_path / "mine")))
    assert (report.checked_files, report.problems, report.notes) == (1, (), ())


# -- what is wrong


@pytest.mark.parametrize(("damage", "kind"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_damage_is_found_where_it_is_and_nowhere_else(folder: RepoFolder, damage: Damage, kind: str) -> None:
    path = damage(folder)
    assert found(verify(folder).problems) == [(kind, path)]


def test_everything_that_is_wrong_is_found_at_once(folder: RepoFolder) -> None:
    wrong = sorted([
        ("corrupt", flip_a_bit(folder)),
        ("dangling-link", lose_a_blob(folder)),
        ("foreign-name", name_a_blob_otherwise(folder)),
        ("bad-ref", end_a_ref_with_a_newline(folder)),
        ("unlisted", plant_a_file(folder)),
    ])  # fmt: skip
    assert sorted(found(verify(folder).problems)) == wrong


def test_a_corrupt_blob_is_told_by_the_file_it_is_known_as(folder: RepoFolder) -> None:
    spoil_a_small_blob(folder)
    assert verify(folder).problems[0].message.startswith("config.json: ")


def test_a_corrupt_blob_names_a_commit_that_needs_it(folder: RepoFolder) -> None:
    flip_a_bit(folder)
    assert verify(folder).problems[0].commit == commit_of(folder)


def test_a_short_blob_is_told_with_both_sizes(folder: RepoFolder) -> None:
    cut_a_blob_short(folder)
    assert f"100 bytes where {len(WEIGHTS)} are listed" in verify(folder).problems[0].message


def test_an_unwanted_blob_is_hashed_too(folder: RepoFolder) -> None:
    (folder.path / "blobs" / ("0" * 64)).write_bytes(b"nobody points here")
    assert found(verify(folder).problems) == [("corrupt", f"blobs/{'0' * 64}")]


def test_a_corrupt_file_is_found_where_there_are_no_links(hub: LoopHub, tmp_path: Path) -> None:
    folder = pull_into(tmp_path / "hub", hub, NAME, links=False)
    (snapshot(folder) / "sub" / "deep" / "notes.txt").write_bytes(b"NOTES")
    assert found(verify(folder).problems) == [("corrupt", f"snapshots/{commit_of(folder)}/sub/deep/notes.txt")]


def test_a_file_of_which_no_listing_tells_is_a_note(hub: LoopHub, tmp_path: Path) -> None:
    folder = pull_into(tmp_path / "hub", hub, NAME, links=False)
    tree(folder).unlink()
    report = verify(folder)
    assert (report.problems, found(report.notes)) == ((), [("unverifiable", f"snapshots/{commit_of(folder)}")])


def test_a_repo_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    folder = RepoFolder(tmp_path, RepoId("hf", "model", NAME))
    folder.path.write_text("")
    assert {problem.kind for problem in verify(folder).problems} == {"unreadable"}


# -- what is no problem


def test_missing_files_are_a_note(folder: RepoFolder) -> None:
    (snapshot(folder) / "config.json").unlink()
    report = verify(folder)
    assert (report.problems, [note.kind for note in report.notes]) == ((), ["partial"])


@pytest.mark.parametrize("name", ["0" * 64 + ".01234567.incomplete", "0" * 64 + ".01234567.ranges.incomplete"])
def test_what_an_interrupted_pull_left_is_a_note(folder: RepoFolder, name: str) -> None:
    (folder.path / "blobs" / name).write_bytes(b"half")
    report = verify(folder)
    assert (report.problems, found(report.notes)) == ((), [("leftover", f"blobs/{name}")])


@pytest.mark.parametrize("name", [".DS_Store", "sub/__pycache__/x.pyc"])
def test_what_a_system_drops_is_a_note(folder: RepoFolder, name: str) -> None:
    (snapshot(folder) / name).parent.mkdir(exist_ok=True)
    (snapshot(folder) / name).write_bytes(b"x")
    report = verify(folder)
    assert (report.problems, [note.kind for note in report.notes]) == ((), ["dropped"])


def test_a_cache_behind_a_link_is_whole(folder: RepoFolder, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder.root)
    assert verify(RepoFolder(tmp_path / "link", folder.repo)).problems == ()


def test_a_link_by_absolute_path_to_a_blob_is_no_problem(folder: RepoFolder) -> None:
    link = snapshot(folder) / "config.json"
    link.unlink()
    link.symlink_to(folder.path / "blobs" / CONFIG)
    assert verify(folder).problems == ()


# -- one commit of several


def test_of_one_commit_only_what_it_needs_is_checked(hub: LoopHub, tmp_path: Path) -> None:
    hub.add_commit(NAME, {"new.txt": b"new", "sub/copy.safetensors": None, "model.safetensors": None}, revision="small")
    pull_into(tmp_path / "hub", hub, f"{NAME}@small")
    folder = pull_into(tmp_path / "hub", hub, NAME)
    flip_a_bit(folder)
    end = folder.refs()["main"]
    folder.ref_path("main").write_text(end + "\n")
    report = verify(folder, folder.refs()["small"])
    assert (report.checked_files, report.problems, report.notes) == (4, (), ())


def test_of_one_commit_damage_is_found(folder: RepoFolder) -> None:
    path = flip_a_bit(folder)
    assert found(verify(folder, commit_of(folder)).problems) == [("corrupt", path)]


# -- how it goes


def test_the_progress_is_told_every_byte(folder: RepoFolder) -> None:
    watching = Watching()
    report = verify_repo(folder, progress=watching)
    assert (watching.files, watching.size, watching.advanced, len(watching.finished)) == (
        BLOBS,
        report.checked_size,
        report.checked_size,
        BLOBS,
    )


def test_an_interrupt_ends_every_thread(folder: RepoFolder) -> None:
    class Interrupting(Watching):
        def advance(self, size: int, origin: str, /) -> None:
            super().advance(size, origin)
            raise KeyboardInterrupt

    for number in range(20):
        (folder.path / "blobs" / f"{number:064}").write_bytes(b"x" * (3 << 20))
    watching = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        verify_repo(folder, progress=watching)
    assert watching.advanced < 20 << 20
