"""`hubcache du` and `hubcache history`: what the bytes are, and where they came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commandline import CommandLine
from tests.support.loophub import LoopHub


@pytest.fixture
def command(tmp_path: Path) -> CommandLine:
    """A cache of a model in two commits that share a blob, and of a dataset."""
    command = CommandLine(tmp_path)
    with LoopHub() as hub:
        hub.add_repo("org/m", {"model.safetensors": b"w" * 5000, "config.json": b"{}", "old.txt": b"o" * 300})
        command("pull", "org/m", HF_ENDPOINT=hub.endpoint)
        hub.add_commit("org/m", {"new.txt": b"n" * 200, "old.txt": None})
        command("pull", "org/m", HF_ENDPOINT=hub.endpoint)
        hub.add_repo("other/d", {"rows.csv": b"a,b\n"}, kind="dataset")
        command("pull", "hf://datasets/other/d", HF_ENDPOINT=hub.endpoint)
    return command


def by(command: CommandLine, way: str) -> dict[str, int]:
    return {row["name"]: row["size"] for row in command("du", "--by", way, "--json").facts}


def test_a_blob_of_two_commits_counts_once(command: CommandLine) -> None:
    assert by(command, "org") == {"org": 5000 + 2 + 300 + 200, "other": 4}


def test_types_are_told_apart(command: CommandLine) -> None:
    assert by(command, "type") == {"model": 5502, "dataset": 4}


def test_formats_are_those_of_the_names_in_the_snapshots(command: CommandLine) -> None:
    assert by(command, "format") == {"safetensors": 5000, "txt": 500, "csv": 4, "json": 2}


def test_the_hub_is_where_it_came_from(command: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_bytes(b"x" * 7)
    command("pull", str(tmp_path / "mine"), "--as", "me/mine")
    assert by(command, "hub") == {"huggingface": 5506, "this machine": 7}


def test_a_blob_that_nothing_links_to_is_shown(command: CommandLine) -> None:
    (command.cache / "models--org--m" / "blobs" / ("a" * 40)).write_bytes(b"x" * 99)
    assert by(command, "format")["(no snapshot)"] == 99


def test_an_interrupted_download_is_shown(command: CommandLine) -> None:
    (command.cache / "models--org--m" / "blobs" / f"{'b' * 40}.0123abcd.incomplete").write_bytes(b"x" * 9000)
    assert by(command, "format")["(unfinished)"] == 9000


def test_what_the_disk_has_once_counts_once_over_repos(command: CommandLine) -> None:
    shared = command.cache / "models--org--m" / "blobs"
    [large] = [path for path in shared.iterdir() if path.stat().st_size == 5000]
    twin = command.cache / "datasets--other--d" / "blobs" / large.name
    twin.hardlink_to(large)
    assert sum(by(command, "org").values()) == 5506


def test_the_total_is_on_stderr_and_the_rows_on_stdout(command: CommandLine) -> None:
    ran = command("du")
    assert ran.out.splitlines()[0].split() == ["SIZE", "SHARE", "FILES", "ORG"]
    assert "5.5 kB in 5 files" in ran.err


def test_an_empty_cache_has_no_history(tmp_path: Path) -> None:
    assert CommandLine(tmp_path)("history", "--json").facts == []


def test_the_history_knows_when_each_commit_came_and_from_where(command: CommandLine) -> None:
    events = command("history", "--json").facts
    assert [(event["what"], event["repo"]) for event in events].count(("pull", "org/m")) == 2
    assert all(event["commit"] for event in events if event["what"] == "pull")


def test_the_history_of_one_repo_is_its_own(command: CommandLine) -> None:
    events = command("history", "datasets/other/d", "--json").facts
    assert {event["repo"] for event in events} == {"datasets/other/d"}
