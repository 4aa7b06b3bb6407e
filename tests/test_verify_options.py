"""What bounds a verification: --since, --sample, --rate; and what it tells of permissions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hubcache_cli.verifyoptions import parse_rate, parse_share, parse_since
from hypothesis import given
from hypothesis import strategies as st

from hubcache.app.progress import NoProgress
from hubcache.cache.folder import RepoFolder
from hubcache.cache.index import FileState, Index
from hubcache.cache.verify import Effort, verify_repo
from hubcache.core.artifact import RepoId
from hubcache.core.digests import Digest, digest_bytes
from hubcache.core.sampling import Sample
from hubcache.errors import UsageError
from tests.support.commandline import HUBCACHE, CommandLine
from tests.support.damage import BLOBS, FILES, NAME, SHA256, flip_a_bit, tree
from tests.support.loophub import LoopHub
from tests.support.mending import reachable
from tests.support.pulling import pull_into
from tests.support.waiting import until

MB = 1 << 20


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    cache = tmp_path_factory.mktemp("sound") / "hub"
    with LoopHub() as hub:
        hub.add_repo(NAME, FILES)
        pull_into(cache, hub, NAME)
        yield cache


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> RepoFolder:
    """A copy of a sound cache, whose files are older than a second."""
    shutil.copytree(sound, tmp_path / "hub", symlinks=True)
    return RepoFolder(tmp_path / "hub", RepoId("hf", "model", NAME))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "state" / "index.sqlite3")
    yield index
    index.close()


def kinds(folder: RepoFolder) -> list[tuple[str, str]]:
    return [(note.kind, note.path) for note in verify_repo(folder, progress=NoProgress()).notes]


# -- since


def verify_since(folder: RepoFolder, index: Index, since: float) -> tuple[int, int, int]:
    """Return how many files were read, how many were not, and how many problems there are."""
    report = verify_repo(folder, progress=NoProgress(), effort=Effort(index, since=since))
    return report.checked_files, report.known_files, len(report.problems)


def test_what_was_hashed_since_is_not_read_again(folder: RepoFolder, index: Index) -> None:
    began = int(time.time())
    verify_repo(folder, progress=NoProgress(), effort=Effort(index))
    assert verify_since(folder, index, began) == (0, BLOBS, 0)


def test_what_was_hashed_before_is_read_again(folder: RepoFolder, index: Index) -> None:
    verify_repo(folder, progress=NoProgress(), effort=Effort(index))
    assert verify_since(folder, index, time.time() + 60) == (BLOBS, 0, 0)


def test_without_since_everything_is_read(folder: RepoFolder, index: Index) -> None:
    for _ in range(2):
        report = verify_repo(folder, progress=NoProgress(), effort=Effort(index))
    assert (report.checked_files, report.known_files) == (BLOBS, 0)


def test_what_changed_since_is_read_again(folder: RepoFolder, index: Index) -> None:
    began = int(time.time())
    verify_repo(folder, progress=NoProgress(), effort=Effort(index))
    flip_a_bit(folder)
    assert verify_since(folder, index, began) == (1, BLOBS - 1, 1)


def test_what_was_wrong_is_read_again(folder: RepoFolder, index: Index) -> None:
    flip_a_bit(folder)
    began = int(time.time())
    verify_repo(folder, progress=NoProgress(), effort=Effort(index))
    assert verify_since(folder, index, began) == (1, BLOBS - 1, 1)


def test_a_full_check_finds_what_changed_behind_its_time(folder: RepoFolder, index: Index) -> None:
    verify_repo(folder, progress=NoProgress(), effort=Effort(index))
    blob = folder.path / "blobs" / SHA256
    status = blob.stat()
    flip_a_bit(folder)
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(verify_repo(folder, progress=NoProgress(), effort=Effort(index)).problems) == 1


def test_a_blob_changed_through_its_link_is_found(folder: RepoFolder, index: Index) -> None:
    began = int(time.time())
    verify_repo(folder, progress=NoProgress(), effort=Effort(index))
    [commit] = folder.commits()
    with folder.snapshot_path(commit).joinpath("config.json").open("ab") as file:
        file.write(b"\n")
    assert verify_since(folder, index, began) == (1, BLOBS - 1, 1)


def test_a_lost_index_makes_everything_be_read(folder: RepoFolder, tmp_path: Path) -> None:
    path = tmp_path / "state" / "index.sqlite3"
    first = Index(path)
    verify_repo(folder, progress=NoProgress(), effort=Effort(first))
    first.close()
    path.write_bytes(b"no database")
    again = Index(path)
    assert verify_since(folder, again, 0) == (BLOBS, 0, 0)
    again.close()


def test_a_digest_is_proven_for_one_state_of_a_file(index: Index, tmp_path: Path) -> None:
    path, state = tmp_path / "x", FileState(1, 2, 3)
    index.remember(path, state, sha256=SHA256)
    proven = [index.proven_at(path, Digest.parse(SHA256), each) > 0 for each in (state, FileState(1, 9, 3))]
    assert proven == [True, False]


def rows(home: Path) -> int:
    """Count what the index of a command's home has."""
    path = home / ".local/state/hubcache/index.sqlite3"
    if not path.exists():
        return 0
    connection = sqlite3.connect(path, timeout=5)
    try:
        return int(connection.execute("SELECT count(*) FROM hashes").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0
    finally:
        connection.close()


@pytest.fixture
def many(tmp_path: Path) -> CommandLine:
    """The command, and a cache with eight blobs of a megabyte."""
    blobs = tmp_path / "hub" / "models--org--many" / "blobs"
    blobs.mkdir(parents=True)
    (blobs.parent / "snapshots").mkdir()
    for number in range(8):
        content = bytes([number]) * MB
        (blobs / digest_bytes("sha256", content).hex).write_bytes(content)
    return CommandLine(tmp_path)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_check_that_was_cut_short_reads_only_the_rest(many: CommandLine, end: signal.Signals) -> None:
    command = [str(HUBCACHE), "verify", "--rate", "2"]
    with subprocess.Popen(command, env=many.environ, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: rows(many.home) >= 2, "two hashes")
        process.send_signal(end)
        process.communicate()
    known = rows(many.home)
    facts = many("verify", "--since", "1h", "--json").facts
    assert (facts["known_files"], facts["checked_files"]) == (known, 8 - known)
    assert known < 8


def test_an_interrupted_check_says_how_it_goes_on(many: CommandLine) -> None:
    command = [str(HUBCACHE), "verify", "--rate", "2"]
    with subprocess.Popen(command, env=many.environ, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: rows(many.home) >= 1, "a hash")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (process.returncode, "add: --since 20" in err, "Traceback" in err) == (130, True, False), err


# -- sample


def test_days_that_follow_look_at_every_file_once() -> None:
    digests = [digest_bytes("sha256", bytes([number])) for number in range(200)]
    looks = [sum(Sample(0.05, day).has(digest) for day in range(20_000, 20_020)) for digest in digests]
    assert set(looks) == {1}


@given(st.binary(), st.integers(0, 100_000))
def test_a_sample_of_everything_is_everything(content: bytes, day: int) -> None:
    assert Sample(1.0, day).has(digest_bytes("git-sha1", content))


def test_a_sample_says_what_it_did_not_look_at(folder: RepoFolder) -> None:
    reports = [verify_repo(folder, progress=NoProgress(), effort=Effort(sample=Sample(0.25, day))) for day in range(4)]
    assert [report.checked_files + report.undrawn_files for report in reports] == [BLOBS] * 4
    assert sum(report.checked_size for report in reports) == sum(report.undrawn_size for report in reports) // 3


def test_a_sample_looks_at_every_link_all_the_same(folder: RepoFolder) -> None:
    [commit] = folder.commits()
    link = folder.snapshot_path(commit) / "config.json"
    link.unlink()
    link.symlink_to("../../blobs/" + "0" * 40)
    report = verify_repo(folder, progress=NoProgress(), effort=Effort(sample=Sample(1e-9, 0)))
    assert [problem.kind for problem in report.problems] == ["dangling-link"]


def test_the_command_says_what_a_sample_left_out(many: CommandLine) -> None:
    facts = many("verify", "--sample", "50%", "--json").facts
    told = many("verify", "--sample", "0.0001%")
    assert facts["checked_files"] + facts["undrawn_files"] == 8
    assert "not read, for another day's sample has them" in told.err


# -- rate


def test_a_rate_holds_over_all_threads(many: CommandLine) -> None:
    began = time.monotonic()
    assert many("verify", "--rate", "8").code == 0
    assert time.monotonic() - began > 0.8


def test_every_byte_is_accounted_to_the_rate(folder: RepoFolder) -> None:
    spent: list[int] = []
    report = verify_repo(folder, progress=NoProgress(), effort=Effort(spend=spent.append))
    assert sum(spent) == report.checked_size


# -- what is typed


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7d", NOW - 7 * 86400), ("12h", NOW - 43200), ("2026-11-01T10:00", datetime(2026, 11, 1, 10).timestamp())],
)
def test_since_is_a_span_or_a_date(text: str, expected: float) -> None:
    assert parse_since(text, now=NOW) == expected


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (lambda text: parse_since(text, now=NOW), "yesterday"),
        (lambda text: parse_since(text, now=NOW), "7"),
        (parse_rate, "0"),
        (parse_rate, "fast"),
        (parse_share, "5"),
        (parse_share, "0%"),
        (parse_share, "101%"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(parse: Callable[[str], float], text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_a_rate_may_name_its_unit() -> None:
    assert (parse_rate("50"), parse_rate("50MB/s"), parse_rate("2.5 MB")) == (50, 50, 2.5)


def test_yes_without_repair_is_wrong_usage(many: CommandLine) -> None:
    assert many("verify", "--yes").code == 2


# -- permissions


@pytest.fixture
def open_folder(folder: RepoFolder) -> Iterator[RepoFolder]:
    """A cache that others can come to."""
    with reachable(folder.root):
        yield folder


def test_what_others_cannot_read_is_noted(open_folder: RepoFolder) -> None:
    tree(open_folder).chmod(0o600)
    assert kinds(open_folder) == [("unshared", f"trees/{tree(open_folder).name}")]


def test_in_a_cache_that_others_cannot_enter_nothing_is_noted(folder: RepoFolder) -> None:
    folder.root.chmod(0o700)
    tree(folder).chmod(0o600)
    assert kinds(folder) == []


def test_many_files_of_a_kind_are_one_line(open_folder: RepoFolder) -> None:
    for blob in (open_folder.path / "blobs").iterdir():
        blob.chmod(0o600)
    [note] = verify_repo(open_folder, progress=NoProgress()).notes
    assert f"and so with {BLOBS - 1} more" in note.message


def test_what_anybody_may_change_is_noted(folder: RepoFolder) -> None:
    (folder.path / "blobs" / SHA256).chmod(0o666)
    assert kinds(folder) == [("writable-by-all", f"blobs/{SHA256}")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_somebody_else_owns_is_noted(folder: RepoFolder) -> None:
    os.chown(folder.path / "blobs" / SHA256, 12345, -1)
    assert kinds(folder) == [("foreign-owner", f"blobs/{SHA256}")]


# -- the journal


def test_a_verification_is_noted_in_the_journal(many: CommandLine) -> None:
    many("verify")
    line = json.loads((many.home / ".local/state/hubcache/history.jsonl").read_text())
    assert (line["what"], line["size"], line["note"]) == ("verify", 8 * MB, "1 repo, 0 problems")
