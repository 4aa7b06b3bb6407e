"""`hubcache info` shows what the cache knows of a commit, in 80 columns or as JSON, and asks nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcache.cache.folder import RepoFolder
from tests.support.commandline import CommandLine
from tests.support.damage import FILES, NAME, SHA256, commit_of, cut_a_blob_short, tree
from tests.support.loophub import LoopHub
from tests.support.pulling import pull_into

LONG = "organisation-with-a-long-name/a-model-whose-name-is-even-longer-than-that-of-its-organisation-v2"
UNEQUAL = {"pytorch_model.bin": b"x" * 2_000_000, "modeling_x.py": b"import os", "deep/" * 20 + "file.json": b"{}"}


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopHub]:
    with LoopHub() as hub:
        hub.add_repo(NAME, FILES)
        hub.add_repo(LONG, UNEQUAL)
        yield hub


@pytest.fixture
def hubcache(hub: LoopHub, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint)


@pytest.fixture
def folder(hubcache: CommandLine, hub: LoopHub) -> RepoFolder:
    """A short repo in the command's cache."""
    return pull_into(hubcache.cache, hub, NAME)


@pytest.fixture
def long_folder(hubcache: CommandLine, hub: LoopHub) -> RepoFolder:
    """One with a long name, long paths, a pickle and code."""
    return pull_into(hubcache.cache, hub, LONG)


def test_info_tells_what_is_known(hubcache: CommandLine, folder: RepoFolder, hub: LoopHub) -> None:
    facts = hubcache("info", NAME, "--json").facts
    commit = commit_of(folder)
    assert {key: facts[key] for key in ("repo", "type", "commit", "refs", "path", "origin", "source", "size")} == {
        "repo": NAME,
        "type": "model",
        "commit": commit,
        "refs": ["main"],
        "path": str(hubcache.snapshot(NAME, commit)),
        "origin": hub.endpoint,
        "source": f"hf:{NAME}",
        "size": sum(map(len, FILES.values())),
    }


def test_info_lists_every_file_with_its_digest(hubcache: CommandLine, folder: RepoFolder) -> None:
    files = hubcache("info", NAME, "--json").facts["files"]
    assert {file["path"]: file["size"] for file in files} == {path: len(body) for path, body in FILES.items()}
    assert [file["digest"] for file in files if file["path"] == "model.safetensors"] == [SHA256]


def test_info_fits_80_columns_but_for_what_is_to_be_copied(hubcache: CommandLine, long_folder: RepoFolder) -> None:
    wide = [line.split() for line in hubcache("info", LONG).out.splitlines() if len(line) > 80]
    assert {row[0]: len(row) for row in wide} == {"model": 2, "source": 2, "snapshot": 2}


def test_info_marks_what_can_run_code(hubcache: CommandLine, long_folder: RepoFolder) -> None:
    rows = [line.split() for line in hubcache("info", LONG).out.splitlines()]
    assert {row[0]: row[-1] for row in rows if row and row[-1] in {"pickle", "code"}} == {
        "modeling_x.py": "code",
        "pytorch_model.bin": "pickle",
    }


def test_info_marks_what_is_missing(hubcache: CommandLine, folder: RepoFolder) -> None:
    (hubcache.snapshot(NAME, commit_of(folder)) / "config.json").unlink()
    assert "missing" in next(line for line in hubcache("info", NAME).out.splitlines() if "config.json" in line)


def test_info_of_a_short_blob_calls_its_files_missing(hubcache: CommandLine, folder: RepoFolder) -> None:
    cut_a_blob_short(folder)
    facts = hubcache("info", NAME, "--json").facts
    assert facts["missing_size"] == 2 * len(FILES["model.safetensors"])


def test_info_without_a_listing_says_that_it_may_not_know_all(hubcache: CommandLine, folder: RepoFolder) -> None:
    tree(folder).unlink()
    assert "listing   none" in hubcache("info", NAME).out


def test_info_of_one_file_shows_that_file(hubcache: CommandLine, folder: RepoFolder) -> None:
    files = hubcache("info", f"hf://{NAME}@main/config.json", "--json").facts["files"]
    assert [file["path"] for file in files] == ["config.json"]


def test_info_of_a_file_that_is_none_ends_with_4(hubcache: CommandLine, folder: RepoFolder) -> None:
    assert hubcache("info", f"hf://{NAME}@main/other.json").code == 4


def test_info_of_what_is_not_cached_ends_with_5(hubcache: CommandLine) -> None:
    assert hubcache("info", "org/other").code == 5


def test_info_asks_nobody(hubcache: CommandLine, folder: RepoFolder, hub: LoopHub) -> None:
    hub.clear()
    hubcache("info", NAME)
    assert hub.requests == []
