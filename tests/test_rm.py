"""`hubcache rm`: what is named goes, what others need stays, and huggingface_hub reads the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, try_to_load_from_cache

from tests.support.collecting import MadeCache, paths, standing
from tests.support.commandline import CommandLine
from tests.support.loophub import LoopHub
from tests.support.wholeness import faults, unverified

A, B = "a" * 40, "b" * 40
SHARED = b"weights" * 100


@pytest.fixture
def made(tmp_path: Path) -> MadeCache:
    made = MadeCache(tmp_path / "hub")
    made.commit("org/m", "a", {"w.bin": SHARED, "sub/old.txt": b"old"}, refs=("v1",))
    made.commit("org/m", "b", {"w.bin": SHARED, "new.txt": b"new", "sub/x": b"x"}, refs=("main", "latest"))
    made.commit("org/n", "c", {"w.bin": SHARED}, refs=("main",))
    return made


@pytest.fixture
def hubcache(made: MadeCache, tmp_path: Path) -> Iterator[CommandLine]:
    yield CommandLine(tmp_path)
    assert faults(made.root) == []


def commits(made: MadeCache) -> set[str]:
    return {revision.commit_hash for repo in scan_cache_dir(made.root).repos for revision in repo.revisions}


def test_a_repo_goes(made: MadeCache, hubcache: CommandLine) -> None:
    assert hubcache("rm", "org/m", "--yes").code == 0
    assert (made.folder("org/m").path.exists(), commits(made)) == (False, {"c" * 40})


@pytest.mark.parametrize("revision", ["v1", A, A[:8]])
def test_a_revision_goes_and_keeps_what_others_link_to(made: MadeCache, hubcache: CommandLine, revision: str) -> None:
    hubcache("rm", f"org/m@{revision}", "--yes")
    assert commits(made) == {B, "c" * 40}
    assert unverified(made.folder("org/m").snapshot_path(B)) == []
    assert made.folder("org/m").refs() == {"main": B, "latest": B}


def test_a_ref_beside_others_goes_alone(made: MadeCache, hubcache: CommandLine) -> None:
    ran = hubcache("rm", "org/m@latest", "--yes")
    assert "main means the commit, too" in ran.out
    assert (made.folder("org/m").refs(), commits(made)) == ({"main": B, "v1": A}, {A, B, "c" * 40})


def test_main_is_a_ref_like_any_other(made: MadeCache, hubcache: CommandLine) -> None:
    hubcache("rm", "org/m@main", "--yes")
    assert made.folder("org/m").refs() == {"latest": B, "v1": A}


def test_a_file_goes_from_its_commit_alone(made: MadeCache, hubcache: CommandLine) -> None:
    assert hubcache("rm", "hf://org/m@v1/w.bin", "--yes").code == 0
    loaded = try_to_load_from_cache("org/m", "w.bin", cache_dir=made.root, revision="main")
    assert (Path(str(loaded)).read_bytes(), try_to_load_from_cache("org/m", "w.bin", made.root, "v1")) == (SHARED, None)


def test_a_file_takes_its_blob_where_nothing_else_links_to_it(made: MadeCache, hubcache: CommandLine) -> None:
    before = len(hubcache.blobs("org/m"))
    hubcache("rm", "hf://org/m/new.txt", "--yes")
    assert len(hubcache.blobs("org/m")) == before - 1


def test_a_folder_goes_with_all_its_files(made: MadeCache, hubcache: CommandLine) -> None:
    hubcache("rm", "https://huggingface.co/org/m/tree/v1/sub", "--yes")
    assert [path.name for path in made.folder("org/m").snapshot_path(A).iterdir()] == ["w.bin"]


def test_several_go_in_one_removal(made: MadeCache, hubcache: CommandLine) -> None:
    before = standing(made.root)
    hubcache("rm", "org/m@v1", "org/n", "hf://org/m/new.txt", "--yes")
    assert commits(made) == {B}
    hubcache("rm", "--undo")
    assert standing(made.root) == before


def test_the_last_revision_takes_the_repo(made: MadeCache, hubcache: CommandLine) -> None:
    hubcache("rm", "org/n@main", "--yes")
    assert not made.folder("org/n").path.exists()


def test_a_dry_run_shows_and_removes_nothing(made: MadeCache, hubcache: CommandLine) -> None:
    before = standing(made.root)
    ran = hubcache("rm", "org/m", "--dry-run")
    assert (ran.code, ran.out.startswith("goes ")) == (0, True)
    assert standing(made.root) == before


def test_unasked_it_removes_nothing(made: MadeCache, hubcache: CommandLine) -> None:
    before = standing(made.root)
    assert hubcache("rm", "org/m").code == 2
    assert standing(made.root) == before


def test_without_undo_it_is_gone(made: MadeCache, hubcache: CommandLine) -> None:
    hubcache("rm", "org/m", "--yes", "--no-undo")
    assert hubcache("rm", "--undo").code == 4


@pytest.mark.parametrize("reference", ["org/none", "org/m@none", "hf://org/m/none.txt"])
def test_what_is_not_there_is_an_answer(hubcache: CommandLine, reference: str) -> None:
    assert hubcache("rm", reference, "--yes").code == 4


def test_a_second_time_it_is_not_there(hubcache: CommandLine) -> None:
    hubcache("rm", "org/n", "--yes")
    assert hubcache("rm", "org/n", "--yes").code == 4


def test_one_wrong_reference_removes_nothing(made: MadeCache, hubcache: CommandLine) -> None:
    before = standing(made.root)
    assert hubcache("rm", "org/n", "org/none", "--yes").code == 4
    assert standing(made.root) == before


@pytest.mark.parametrize("pin", ["org/m", "org/m@v1", f"org/m@{A}"])
@pytest.mark.parametrize("reference", ["org/m", "org/m@v1", f"org/m@{A}", "hf://org/m@v1/w.bin"])
def test_what_is_pinned_is_refused_until_it_is_unpinned(
    made: MadeCache, hubcache: CommandLine, pin: str, reference: str
) -> None:
    hubcache("pin", pin)
    before = standing(made.root)
    ran = hubcache("rm", reference, "--yes")
    assert (ran.code, f"hint: hubcache unpin {pin}" in ran.err) == (2, True)
    assert standing(made.root) == before
    hubcache("unpin", pin)
    assert hubcache("rm", reference, "--yes").code == 0


def test_json_tells_what_was_done(hubcache: CommandLine) -> None:
    facts = hubcache("rm", "org/n", "--yes", "--json").facts
    assert (facts["lines"][0]["repo"], facts["lines"][0]["size"], facts["done"]["paths"]) == ("org/n", len(SHARED), 1)


def test_the_history_tells_of_it(hubcache: CommandLine) -> None:
    hubcache("rm", "org/m@v1", "--yes")
    [line] = (hubcache.home / ".local/state/hubcache/history.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["what"], told["repo"], told["commit"], told["size"]) == ("remove", "org/m", A, 3)


def test_what_was_removed_is_pulled_again(tmp_path: Path) -> None:
    with LoopHub() as hub:
        hub.add_repo("org/name", {"config.json": b"{}", "w.bin": SHARED})
        hubcache = CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint)
        hubcache("pull", "org/name")
        before = paths(standing(hubcache.cache))
        hubcache("rm", "hf://org/name/w.bin", "--yes")
        assert hubcache("pull", "org/name").code == 0
        assert paths(standing(hubcache.cache)) == before
