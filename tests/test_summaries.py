"""The index makes `ls` fast and never wrong: whatever changes is read again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hubcache.cache.index import Index
from hubcache.cache.scan import scan
from hubcache.cache.summaries import scan_indexed
from tests.bench.cache_ls import make_repo
from tests.support.commandline import CommandLine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache of six repos of four files."""
    for number in range(6):
        make_repo(tmp_path / "hub", number, 4)
    return tmp_path / "hub"


def repo(root: Path) -> Path:
    return next(path for path in sorted(root.iterdir()) if path.name.startswith("models--"))


def orphan(root: Path) -> None:
    (repo(root) / "blobs" / ("a" * 40)).write_bytes(b"x" * 500)


def remove_blob(root: Path) -> None:
    next((repo(root) / "blobs").iterdir()).unlink()


def remove_link(root: Path) -> None:
    next(next((repo(root) / "snapshots").iterdir()).iterdir()).unlink()


def add_ref(root: Path) -> None:
    commit = next((repo(root) / "snapshots").iterdir()).name
    (repo(root) / "refs" / "refs" / "pr").mkdir(parents=True)
    (repo(root) / "refs" / "refs" / "pr" / "1").write_text(commit)


def move_ref(root: Path) -> None:
    (repo(root) / "snapshots" / ("b" * 40)).mkdir()
    (repo(root) / "refs" / "new").write_text("b" * 40)
    os.replace(repo(root) / "refs" / "new", repo(root) / "refs" / "main")


def nested_file(root: Path) -> None:
    folder = next((repo(root) / "snapshots").iterdir()) / "deep" / "er"
    folder.mkdir(parents=True)
    (folder / "real.bin").write_bytes(b"x" * 77)


def partial(root: Path) -> None:
    (repo(root) / "blobs" / f"{'c' * 40}.01234567.incomplete").write_bytes(b"x" * 9000)


def gone(root: Path) -> None:
    shutil.rmtree(repo(root))


def another(root: Path) -> None:
    make_repo(root, 99, 2)


CHANGES = [orphan, remove_blob, remove_link, add_ref, move_ref, nested_file, partial, gone, another]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_shows_at_once(root: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    index = Index(tmp_path / "index.sqlite3")
    list(scan_indexed(root, index))
    change(root)
    assert list(scan_indexed(root, index)) == list(scan(root))


def test_what_is_recalled_is_what_was_read(root: Path, tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite3")
    read = list(scan_indexed(root, index))
    assert list(scan_indexed(root, index)) == read


def test_an_unchanged_repo_is_not_read_again(root: Path, tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite3")
    list(scan_indexed(root, index))
    blob = next((repo(root) / "blobs").iterdir())
    before = blob.stat()
    blob.write_bytes(blob.read_bytes() * 2)  # in place: no folder changes, and ls need not notice for a day
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    recalled = next(iter(scan_indexed(root, index)))
    assert recalled.size < next(iter(scan(root))).size


def test_two_caches_do_not_mix(root: Path, tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite3")
    make_repo(tmp_path / "other", 0, 1)
    list(scan_indexed(root, index))
    assert list(scan_indexed(tmp_path / "other", index)) == list(scan(tmp_path / "other"))


def test_a_repo_that_is_gone_is_forgotten(root: Path, tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite3")
    list(scan_indexed(root, index))
    gone(root)
    list(scan_indexed(root, index))
    assert len(index.summaries(root)) == 5


@pytest.fixture
def listed(tmp_path: Path) -> CommandLine:
    """A cache of three repos, of 1, 2 and 3 files, one with an orphan."""
    command = CommandLine(tmp_path)
    for number in range(3):
        make_repo(command.cache, number, number + 1)
    orphan(command.cache)
    return command


def names(command: CommandLine, *options: str) -> list[str]:
    return [row["repo"] for row in command("ls", "--json", *options).facts]


def test_a_filter_by_size_keeps_what_is_larger(listed: CommandLine) -> None:
    assert names(listed, "--filter", "size>150B") == ["org0/model0000", "org2/model2002".replace("2002", "0002")]


def test_two_filters_must_both_hold(listed: CommandLine) -> None:
    assert names(listed, "-f", "size>150B", "-f", "size<400B") == ["org2/model0002"]


def test_filters_by_type_and_ref_take_words(listed: CommandLine) -> None:
    assert names(listed, "-f", "type=dataset") == []
    assert len(names(listed, "-f", "refs=main")) == 3


def test_a_filter_by_age_is_a_span_of_time_ago(listed: CommandLine) -> None:
    assert names(listed, "-f", "modified>1h") == []
    assert len(names(listed, "-f", "modified<1h")) == 3


def test_sizes_sort_from_the_largest_and_asc_turns_that_round(listed: CommandLine) -> None:
    assert names(listed, "--sort", "size") == list(reversed(names(listed, "--sort", "size:asc")))


@pytest.mark.parametrize("wrong", ["size", "size>", "weight>1", "type>model", "accessed>1 fortnight", "type=thing"])
def test_a_wrong_filter_is_a_usage_error_with_an_example(listed: CommandLine, wrong: str) -> None:
    ran = listed("ls", "--filter", wrong)
    assert ran.code == 2
    assert "hint:" in ran.err


def test_orphans_are_told(listed: CommandLine) -> None:
    assert "500 B that no snapshot links to" in listed("ls").err
    assert sum(row["orphan_size"] for row in listed("ls", "--json").facts) == 500


def test_pins_and_risks_are_told(listed: CommandLine) -> None:
    commit = next((listed.cache / "models--org1--model0001" / "snapshots").iterdir())
    next(commit.iterdir()).rename(commit / "pytorch_model.bin")
    listed("pin", "org1/model0001")
    [row] = [row for row in listed("ls", "--json").facts if row["repo"] == "org1/model0001"]
    assert (row["pinned"], row["risks"]) == (True, ["pickle"])


def test_a_pin_taken_back_shows_at_once(listed: CommandLine) -> None:
    listed("pin", "org1/model0001")
    listed("ls")
    listed("unpin", "org1/model0001")
    assert not any(row["pinned"] for row in listed("ls", "--json").facts)
