"""`hubcache pin` and `unpin`: what is written down, and that it outlives what happens around it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubcache.cache.pinned import read_pins
from tests.support.collecting import MadeCache
from tests.support.commandline import CommandLine
from tests.support.wholeness import faults

A = "a" * 40


@pytest.fixture
def made(tmp_path: Path) -> MadeCache:
    made = MadeCache(tmp_path / "hub")
    made.commit("org/m", "a", {"w.bin": b"w"}, refs=("main", "refs/pr/1"))
    return made


@pytest.fixture
def hubcache(made: MadeCache, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.mark.parametrize(
    ("reference", "revision"),
    [("org/m", "*"), ("org/m@main", "main"), ("org/m@refs/pr/1", "refs/pr/1"), (f"org/m@{A}", A), ("org/m@aaaaaa", A)],
)
def test_a_repo_a_ref_or_a_commit_is_pinned(
    made: MadeCache, hubcache: CommandLine, reference: str, revision: str
) -> None:
    assert hubcache("pin", reference, "--why", "in production").code == 0
    assert {name: pinned.why for name, pinned in read_pins(made.folder("org/m")).items()} == {revision: "in production"}


def test_a_second_pin_changes_nothing(made: MadeCache, hubcache: CommandLine) -> None:
    hubcache("pin", "org/m")
    before = read_pins(made.folder("org/m"))
    assert hubcache("pin", "org/m").code == 0
    assert read_pins(made.folder("org/m")) == before


def test_a_pin_of_what_is_not_here_is_refused(hubcache: CommandLine) -> None:
    assert (hubcache("pin", "org/none").code, hubcache("pin", "org/m@none").code) == (4, 4)


def test_unpinning_what_is_not_pinned_is_said_and_no_error(hubcache: CommandLine) -> None:
    ran = hubcache("unpin", "org/m")
    assert (ran.code, "was not pinned" in ran.err) == (0, True)


def test_unpinning_tells_what_is_still_pinned(hubcache: CommandLine) -> None:
    hubcache("pin", "org/m@main")
    assert "still pinned: main" in hubcache("unpin", "org/m").err


def test_a_pin_of_a_ref_that_is_gone_can_be_taken_back(made: MadeCache, hubcache: CommandLine) -> None:
    hubcache("pin", "org/m@refs/pr/1")
    made.folder("org/m").ref_path("refs/pr/1").unlink()
    assert "pinned no longer" in hubcache("unpin", "org/m@refs/pr/1").err
    assert read_pins(made.folder("org/m")) == {}


def test_pins_do_not_disturb_huggingface_hub(made: MadeCache, hubcache: CommandLine) -> None:
    hubcache("pin", "org/m")
    assert faults(made.root) == []


def test_gc_shows_the_reason(hubcache: CommandLine) -> None:
    hubcache("pin", "org/m@main", "--why", "in production")
    assert "in production" in hubcache("gc", "--dry-run").out


def test_pins_are_in_the_history(hubcache: CommandLine) -> None:
    hubcache("pin", "org/m@main", "--why", "in production")
    hubcache("unpin", "org/m@main")
    lines = (hubcache.home / ".local/state/hubcache/history.jsonl").read_text().splitlines()
    assert [(json.loads(line)["what"], json.loads(line)["note"]) for line in lines] == [
        ("pin", "main: in production"), ("unpin", "main")
    ]  # fmt: skip


def test_json_tells_what_is_pinned(hubcache: CommandLine) -> None:
    assert hubcache("pin", "org/m@main", "--json").facts == {"repo": "org/m", "revision": "main", "pinned": True}
    assert hubcache("unpin", "org/m@main", "--json").facts["was_pinned"] is True
