"""The server's memory of hashes: what it recalls, and that losing it costs time and nothing else."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hubcache.cache.index import VERSION, FileState, Index
from hubcache.core.gitobj import ContentDigests
from hubcache.errors import IntegrityError
from hubcache.localfile import digest_file
from tests.support.wholeness import digest

CONTENT = b"what is hashed\n" * 100
OTHER = b"what is hashed!" * 100
WRITER = """
import sys
from pathlib import Path
from hubcache.cache.index import FileState, Index
index = Index(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.readline()
for number in range(300):
    index.remember(Path(f"/{sys.argv[2]}/{number}"), FileState(1, 2, 3), sha256=sys.argv[2])
index.close()
"""


class Counting:
    """Hashes files, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, path: Path) -> ContentDigests:
        self.count += 1
        return digest_file(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state/index.sqlite3"


def state_of(file: Path) -> FileState:
    return FileState.of(os.stat(file))


def hashes_of(content: bytes) -> ContentDigests:
    return ContentDigests(len(content), digest(content, 40), digest(content, 64))


# -- what is recalled


def test_a_file_is_hashed_once(place: Path, file: Path) -> None:
    index, hashing = Index(place), Counting()
    assert [index.digests(file, hashing) for _ in range(3)] == [hashes_of(CONTENT)] * 3
    assert hashing.count == 1


def test_the_next_process_recalls_it(place: Path, file: Path) -> None:
    first = Index(place)
    first.digests(file)
    first.close()
    hashing = Counting()
    assert (Index(place).digests(file, hashing), hashing.count) == (hashes_of(CONTENT), 0)


def test_a_file_with_another_time_of_change_is_hashed_again(place: Path, file: Path) -> None:
    index = Index(place)
    index.digests(file)
    before = state_of(file)
    file.write_bytes(OTHER)
    os.utime(file, ns=(before.changed + 1, before.changed + 1))
    assert (len(OTHER), index.digests(file)) == (len(CONTENT), hashes_of(OTHER))


def test_a_file_that_took_anothers_place_is_hashed_again(place: Path, file: Path, tmp_path: Path) -> None:
    index = Index(place)
    index.digests(file)
    before = state_of(file)
    (tmp_path / "new").write_bytes(OTHER)
    os.utime(tmp_path / "new", ns=(before.changed, before.changed))
    os.replace(tmp_path / "new", file)
    assert (state_of(file).changed, index.digests(file)) == (before.changed, hashes_of(OTHER))


def test_one_digest_alone_is_recalled_by_its_algorithm(place: Path, file: Path) -> None:
    index, state = Index(place), state_of(file)
    index.remember(file, state, sha256="ab" * 32)
    assert (index.hex_of(file, "sha256", state), index.hex_of(file, "git-sha1", state)) == ("ab" * 32, None)


def test_one_digest_does_not_stand_for_both(place: Path, file: Path) -> None:
    index = Index(place)
    index.remember(file, state_of(file), sha256="ab" * 32)
    assert index.digests(file) == hashes_of(CONTENT)


def test_a_file_that_changed_while_it_was_hashed_is_not_remembered(place: Path, file: Path) -> None:
    index = Index(place)

    def change(path: Path) -> ContentDigests:
        found = digest_file(path)
        path.write_bytes(CONTENT + b"more")
        return found

    index.digests(file, change)
    assert index.hex_of(file, "sha256", state_of(file)) is None


def test_a_file_that_is_gone_is_an_error(place: Path, file: Path) -> None:
    file.unlink()
    with pytest.raises((OSError, IntegrityError)):
        Index(place).digests(file)


def test_a_name_that_is_no_utf8_does_no_harm(place: Path, tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.bin"))
    file.write_bytes(CONTENT)
    index = Index(place)
    assert [index.digests(file) for _ in range(2)] == [hashes_of(CONTENT)] * 2


# -- what it survives


@pytest.mark.parametrize("content", [b"", b"no database at all" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_garbage_in_its_place_is_replaced(place: Path, file: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    index = Index(place)
    index.digests(file)
    index.close()
    assert Index(place).hex_of(file, "sha256", state_of(file)) == digest(CONTENT, 64)


def test_an_index_of_a_newer_version_is_left_alone_and_done_without(place: Path, file: Path) -> None:
    place.parent.mkdir(parents=True)
    with sqlite3.connect(place) as other:
        other.execute("CREATE TABLE hashes (something TEXT)")
        other.execute(f"PRAGMA user_version={VERSION + 1}")
    before = place.read_bytes()
    index = Index(place)
    assert index.digests(file) == hashes_of(CONTENT)
    index.close()
    assert place.read_bytes()[100:] == before[100:]


def test_an_index_of_the_first_version_keeps_what_it_knows(place: Path, file: Path) -> None:
    place.parent.mkdir(parents=True)
    state = state_of(file)
    row = (str(file), state.size, state.changed, state.inode, "", digest(CONTENT, 64), 1)
    with sqlite3.connect(place) as other:
        other.execute(
            "CREATE TABLE hashes (path TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL,"
            " inode INTEGER NOT NULL, git_sha1 TEXT, sha256 TEXT, at INTEGER NOT NULL) WITHOUT ROWID"
        )
        other.execute("INSERT INTO hashes VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        other.execute("PRAGMA user_version=1")
    index = Index(place)
    assert index.hex_of(file, "sha256", state) == digest(CONTENT, 64)
    assert index.summaries(place) == {}


def test_it_works_on_when_its_file_is_deleted_under_it(place: Path, file: Path) -> None:
    index = Index(place)
    index.digests(file)
    for left in place.parent.iterdir():
        left.unlink()
    assert index.digests(file) == hashes_of(CONTENT)
    assert Index(place).hex_of(file, "sha256", state_of(file)) is None


@pytest.mark.parametrize("what", ["a file where its folder should be", "a folder where it should be"])
def test_where_it_cannot_be_written_it_is_kept_in_memory(place: Path, file: Path, what: str) -> None:
    if "folder where it" in what:
        (place / "full").mkdir(parents=True)
    else:
        place.parent.write_bytes(b"")
    index, hashing = Index(place), Counting()
    assert [index.digests(file, hashing) for _ in range(2)] == [hashes_of(CONTENT)] * 2
    assert hashing.count == 1


def test_without_a_place_it_is_kept_in_memory(file: Path) -> None:
    index, hashing = Index(None), Counting()
    assert [index.digests(file, hashing) for _ in range(2)] == [hashes_of(CONTENT)] * 2
    assert hashing.count == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed, whom only root can become")
def test_a_state_folder_that_may_only_be_read_is_no_obstacle(tmp_path: Path, place: Path, file: Path) -> None:
    first = Index(place)
    first.digests(file)
    first.close()
    above = [folder for folder in tmp_path.parents if folder.is_relative_to(tempfile.gettempdir())][:-1]
    for folder in (place.parent, tmp_path, *above):
        folder.chmod(0o755)
    script = (
        "import os, sys; from pathlib import Path; from hubcache.cache.index import Index\n"
        "os.setuid(65534)\n"  # last: another user may not be let into this interpreter's folder
        "index = Index(Path(sys.argv[1])); print([index.digests(Path(sys.argv[2])).sha256 for _ in range(2)])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, place, file], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.stdout, ran.stderr) == (f"{[digest(CONTENT, 64)] * 2}\n", "")


# -- with others


def test_two_processes_write_it_at_once_and_nothing_is_lost(place: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(place)]
    writers = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    ended = [writer.communicate(b"\n", timeout=60) for writer in writers]
    assert [errors for _, errors in ended] == [b"", b""]
    with sqlite3.connect(place) as index:
        rows = index.execute("SELECT sha256, count(*) FROM hashes GROUP BY sha256 ORDER BY sha256").fetchall()
    assert rows == [("a", 300), ("b", 300)]


def test_two_processes_make_it_at_once(place: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(place)]
    writers = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in "abcd"
    ]
    assert [writer.communicate(b"\n", timeout=60)[1] for writer in writers] == [b""] * 4
    with sqlite3.connect(place) as index:
        assert index.execute("SELECT count(*) FROM hashes").fetchone() == (1200,)


def test_hits_add_up_and_the_last_use_is_the_latest(place: Path, tmp_path: Path) -> None:
    index = Index(place)
    index.note_uses(tmp_path, {"models--a--b": 2}, at=100)
    index.note_uses(tmp_path, {"models--a--b": 3, "models--c": 1}, at=50)
    assert index.uses(tmp_path) == {"models--a--b": (5, 100), "models--c": (1, 50)}
