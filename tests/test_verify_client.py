"""What huggingface_hub writes, its shared store included, verifies clean, and damage to it is found all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcache.app.usecases import NoProgress
from hubcache.cache.findings import Problem, Report
from hubcache.cache.folder import RepoFolder
from hubcache.cache.verify import verify_repo
from hubcache.core.artifact import RepoId
from tests.support.damage import BLOBS, FILES, NAME, SHA256, WEIGHTS, commit_of, snapshot
from tests.support.loophub import LoopHub
from tests.support.pulling import pull_into

CLIENT = """
import sys
from huggingface_hub import hf_hub_download, snapshot_download
if sys.argv[1] == "file":
    hf_hub_download("org/name", "config.json")
else:
    snapshot_download("org/name", allow_patterns=sys.argv[2:] or None)
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopHub]:
    with LoopHub() as hub:
        hub.add_repo(NAME, FILES)
        yield hub


@pytest.fixture
def folder(hub: LoopHub, tmp_path: Path) -> RepoFolder:
    return pull_into(tmp_path / "hub", hub, NAME)


def verify(folder: RepoFolder) -> Report:
    return verify_repo(folder, progress=NoProgress())


def found(problems: tuple[Problem, ...]) -> list[tuple[str, str]]:
    return [(problem.kind, problem.path) for problem in problems]


def client_cache(hub: LoopHub, tmp_path: Path, *arguments: str, **environ: str) -> RepoFolder:
    """Let huggingface_hub fill a cache."""
    variables = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_DISABLE_TELEMETRY": "1", **environ,
    }  # fmt: skip
    subprocess.run(
        [sys.executable, "-c", CLIENT, *arguments], env=variables, check=True, capture_output=True, timeout=60
    )
    return RepoFolder(tmp_path / "hub", RepoId("hf", "model", NAME))


def test_what_huggingface_hub_wrote_is_whole(hub: LoopHub, tmp_path: Path) -> None:
    report = verify(client_cache(hub, tmp_path, "all"))
    assert (report.checked_files, report.problems, report.notes) == (BLOBS, (), ())


def test_what_huggingface_hub_wrote_without_links_is_whole(hub: LoopHub, tmp_path: Path) -> None:
    report = verify(client_cache(hub, tmp_path, "all", HF_HUB_DISABLE_SYMLINKS="1"))
    assert (report.checked_files, report.problems, report.notes) == (len(FILES), (), ())


def test_a_single_file_of_huggingface_hub_needs_no_listing(hub: LoopHub, tmp_path: Path) -> None:
    report = verify(client_cache(hub, tmp_path, "file"))
    assert (report.checked_files, report.problems, report.notes) == (1, (), ())


def test_a_part_that_huggingface_hub_pulled_is_no_problem(hub: LoopHub, tmp_path: Path) -> None:
    report = verify(client_cache(hub, tmp_path, "all", "*.json"))
    assert (report.problems, [note.kind for note in report.notes]) == ((), ["partial"])


def test_what_an_interrupted_huggingface_hub_left_is_no_problem(folder: RepoFolder) -> None:
    (folder.path / "trees" / "tmpab12cd_f.tmp").write_text("{")
    (folder.path / "refs" / "main.01234567.tmp").write_text("012")
    assert verify(folder).problems == ()


# -- the store that repos share


def share(folder: RepoFolder) -> Path:
    """Move the weights into the shared store, as huggingface_hub keeps what came by Xet."""
    blob = folder.path / "blobs" / SHA256
    stored = folder.root / "blobs" / "ab" / ("ab" * 32)
    stored.parent.mkdir(parents=True)
    os.replace(blob, stored)
    blob.symlink_to(f"../../blobs/ab/{stored.name}")
    return stored


def test_a_blob_in_the_shared_store_is_hashed_by_the_repos_name_for_it(folder: RepoFolder) -> None:
    share(folder)
    report = verify(folder)
    assert (report.checked_files, report.problems) == (BLOBS, ())


def test_a_corrupt_blob_in_the_shared_store_is_found(folder: RepoFolder) -> None:
    share(folder).write_bytes(b"x" * len(WEIGHTS))
    assert found(verify(folder).problems) == [("corrupt", f"blobs/{SHA256}")]


def test_a_snapshots_link_into_the_shared_store_is_held_against_the_listing(folder: RepoFolder) -> None:
    stored = share(folder)
    link = snapshot(folder) / "model.safetensors"
    link.unlink()
    link.symlink_to(f"../../../blobs/ab/{stored.name}")
    stored.write_bytes(b"x" * len(WEIGHTS))
    assert ("corrupt", f"snapshots/{commit_of(folder)}/model.safetensors") in found(verify(folder).problems)
