"""A file that is filling up: what survives threads, processes and full disks."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

import pytest

from hubcache import fetch
from hubcache.cache.folder import RepoFolder
from hubcache.cache.writer import CacheBlobWriter, blob_writer, leftovers
from hubcache.core.artifact import RepoId
from hubcache.core.digests import Blob, digest_bytes
from hubcache.crew import Stop
from hubcache.errors import CacheError, CacheLocked, DiskFull, IntegrityError, SourceUnavailable
from hubcache.fetch import Run, TransferLimits, fill
from hubcache.partial import PartialFile
from tests.support.puller import Seen
from tests.support.waiting import until

CONTENT = random.Random(1).randbytes(100_000)
DIGEST = digest_bytes("sha256", CONTENT).hex


def opened(folder: Path, size: int | None = len(CONTENT)) -> PartialFile:
    return PartialFile(folder / "file", size, algorithms=("sha256",), journal=folder / "file.ranges")


# -- one process after the other


def test_bytes_in_order_are_taken_over_by_their_length(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write(0, CONTENT[:500])
    first.close()
    assert opened(tmp_path).missing() == [(500, len(CONTENT))]


def test_bytes_out_of_order_are_taken_over_by_the_journal(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write(0, CONTENT[:10])
    first.out_of_order()
    first.write(50_000, CONTENT[50_000:])
    first.close()
    assert opened(tmp_path).missing() == [(10, 50_000)]


def test_a_journal_line_that_was_cut_short_takes_no_other_along(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.out_of_order()
    first.write(50_000, CONTENT[50_000:])
    first.close()
    with (tmp_path / "file.ranges").open("ab") as journal:
        journal.write(b"\n30")
    second = opened(tmp_path)
    second.out_of_order()
    second.write(0, CONTENT[:100])
    second.close()
    assert opened(tmp_path).missing() == [(100, 50_000)]


def test_a_full_disk_does_not_cost_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(tmp_path)
    first.out_of_order()
    first.write(50_000, CONTENT[50_000:])
    first.close()
    second = opened(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        patch.setattr(os, "pwrite", full)
        second.out_of_order()
        with pytest.raises(DiskFull):
            second.write(0, b"x")
    second.close()
    assert opened(tmp_path).missing() == [(0, 50_000)]


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_longer_than_it_may_be_begins_again_without_its_journal(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT + b"more")
    (tmp_path / "file.ranges").write_bytes(b"0 100\n")
    second = opened(tmp_path)
    second.write(0, CONTENT[:10])
    second.close()
    assert opened(tmp_path).missing() == [(10, len(CONTENT))]


# -- two at once


def test_a_file_that_is_written_to_is_nobody_elses(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(CacheLocked):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def test_threads_that_write_the_same_bytes_write_them_once(tmp_path: Path) -> None:
    partial = opened(tmp_path)
    new: list[int] = []

    def write_all() -> None:
        new.extend(partial.write(at, CONTENT[at : at + 700]) for at in range(0, len(CONTENT), 700))

    threads = [threading.Thread(target=write_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (sum(new), partial.digests()) == (len(CONTENT), {"sha256": DIGEST})


def test_a_file_is_closed_only_when_nobody_writes_to_it_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = opened(tmp_path)
    entered, go_on, real = Stop(), Stop(), os.pwrite

    def slow(fd: int, chunk: bytes, at: int) -> int:
        entered.set()
        go_on.wait(10)
        return real(fd, chunk, at)

    monkeypatch.setattr(os, "pwrite", slow)
    writer = threading.Thread(target=partial.write, args=(0, CONTENT[:100]))
    writer.start()
    entered.wait(10)
    partial.close()
    with (tmp_path / "stranger").open("wb"):  # would get a descriptor that was closed too early
        go_on.set()
        writer.join(10)
    assert (tmp_path / "stranger").read_bytes() == b""
    assert (tmp_path / "file").read_bytes() == CONTENT[:100]
    with pytest.raises(CacheError):
        partial.write(100, b"x")


def test_a_follower_hashes_what_is_adopted_and_not_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 60_000)
    (tmp_path / "finished").write_bytes(CONTENT)
    partial, stop = opened(tmp_path), Stop()
    follower = threading.Thread(target=partial.follow, args=(stop,))
    follower.start()
    partial.adopt(tmp_path / "finished")
    follower.join(10)
    assert not follower.is_alive()
    assert partial.digests() == {"sha256": DIGEST}


def test_a_follower_ends_when_the_file_is_closed(tmp_path: Path) -> None:
    partial = opened(tmp_path)
    follower = threading.Thread(target=partial.follow, args=(Stop(),))
    follower.start()
    partial.write(0, CONTENT[:5])
    partial.close()
    follower.join(10)
    assert not follower.is_alive()


def test_a_closed_file_has_no_digest(tmp_path: Path) -> None:
    partial = opened(tmp_path)
    partial.write(0, CONTENT)
    partial.close()
    with pytest.raises(CacheError):
        opened(tmp_path, len(CONTENT) + 1).digests()


# -- writers of one blob


@pytest.fixture
def folder(tmp_path: Path) -> RepoFolder:
    folder = RepoFolder(tmp_path, RepoId("hf", "model", "org/m"))
    (folder.path / "blobs").mkdir(parents=True)
    return folder


BLOB = Blob(digest_bytes("sha256", CONTENT), len(CONTENT))


def test_a_writer_without_the_lock_keeps_its_file_from_one_that_holds_it(folder: RepoFolder) -> None:
    lockless = CacheBlobWriter(folder, BLOB)
    lockless.begin(claim=False)
    assert lockless.partial is not None
    lockless.partial.write(0, CONTENT[:100])
    with blob_writer(folder, BLOB, stop=Stop()) as writer:
        assert writer.partial is not None
        assert writer.partial.path != lockless.partial.path
        writer.partial.write(0, CONTENT)
        writer.publish({"one"})
    lockless.partial.write(100, CONTENT[100:])
    lockless.publish({"other"})
    assert folder.blob_path(BLOB.digest).read_bytes() == CONTENT


def test_of_several_leftovers_the_furthest_is_taken_and_the_others_are_dropped(folder: RepoFolder) -> None:
    for count in (50_000, 90_000, 10):
        lockless = CacheBlobWriter(folder, BLOB)
        lockless.begin(claim=False)
        assert lockless.partial is not None
        lockless.partial.write(0, CONTENT[:count])
        lockless.close()
    with blob_writer(folder, BLOB, stop=Stop()) as writer:
        assert writer.partial is not None
        assert (writer.partial.received(), len(leftovers(folder, BLOB))) == (90_000, 1)


def test_a_leftover_of_another_user_is_no_obstacle(folder: RepoFolder) -> None:
    (folder.path / "blobs" / f"{BLOB.digest.hex}.01234567.incomplete").mkdir()  # what root cannot open either
    with blob_writer(folder, BLOB, stop=Stop()) as writer:
        assert writer.partial is not None
        writer.partial.write(0, CONTENT)
        writer.publish({"one"})


def test_a_stop_gives_the_lock_back(folder: RepoFolder) -> None:
    stop = Stop()
    with blob_writer(folder, BLOB, stop=stop) as writer:
        assert writer.partial is not None
        stop.set()
    with blob_writer(folder, BLOB, stop=Stop()) as writer:
        assert writer.partial is not None


# -- filling


class Bytes:
    """A content made of pieces, of which it says nothing or what it is told to say."""

    file = None
    origin = "example.com"

    def __init__(
        self, pieces: list[bytes], *, start: int = 0, end: int | None = None, total: int | None = None
    ) -> None:
        self.start, self.end, self.total = start, end, total
        self._pieces = pieces

    def read(self, limit: int, /) -> bytes:
        if not self._pieces:
            return b""
        piece, self._pieces[0] = self._pieces[0][:limit], self._pieces[0][limit:]
        if not self._pieces[0]:
            self._pieces.pop(0)
        return piece

    def close(self) -> None:
        pass

    def __enter__(self) -> Bytes:
        return self

    def __exit__(self, *_: object) -> None:
        pass


ONCE = TransferLimits(attempts=1)


@pytest.fixture(params=["in order", "by ranges"])
def _sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "by ranges":
        monkeypatch.setattr(fetch, "SMALL", 1000)
        monkeypatch.setattr(fetch, "SMALLEST_PIECE", 30_000)


@pytest.mark.timeout(20)
@pytest.mark.usefixtures("_sizes")
class TestFill:
    def test_an_answer_that_ends_cleanly_and_short_is_no_file(self, tmp_path: Path) -> None:
        partial = opened(tmp_path)
        with pytest.raises(SourceUnavailable):
            fill(partial, lambda start, end: Bytes([CONTENT[:50]]), Run(Seen(), ONCE))
        assert partial.size == len(CONTENT)

    def test_answers_that_bring_a_little_each_are_put_together(self, tmp_path: Path) -> None:
        partial = opened(tmp_path)
        fill(partial, lambda start, end: Bytes([CONTENT[start : start + 9999]], start=start), Run(Seen()))
        assert partial.digests() == {"sha256": DIGEST}

    def test_an_answer_without_a_byte_is_not_asked_for_for_ever(self, tmp_path: Path) -> None:
        with pytest.raises(SourceUnavailable):
            fill(
                opened(tmp_path),
                lambda start, end: Bytes([], start=start, end=end, total=len(CONTENT)),
                Run(Seen(), ONCE),
            )

    def test_a_longer_answer_is_cut_at_the_size(self, tmp_path: Path) -> None:
        partial = opened(tmp_path)
        fill(partial, lambda start, end: Bytes([CONTENT + b"more"]), Run(Seen()))
        assert partial.digests() == {"sha256": DIGEST}

    def test_another_size_is_a_wrong_answer(self, tmp_path: Path) -> None:
        with pytest.raises(IntegrityError, match=r"example\.com"):
            fill(opened(tmp_path), lambda start, end: Bytes([CONTENT], total=1), Run(Seen()))

    def test_a_stop_ends_it_and_keeps_what_came(self, tmp_path: Path) -> None:
        partial, stop = opened(tmp_path), Stop()

        class Endless(Bytes):
            def read(self, limit: int, /) -> bytes:
                until(stop.is_set, "the stop") if not self._pieces else None
                return super().read(limit)

        filling = threading.Thread(
            target=fill,
            args=(partial, lambda start, end: Endless([CONTENT[start : start + 10]], start=start)),
            kwargs={"run": Run(Seen(), stop=stop)},
        )
        filling.start()
        until(lambda: partial.received() >= 10, "the first bytes")
        stop.set()
        filling.join(10)
        assert not filling.is_alive()
        assert partial.received() >= 10


def test_a_file_of_unknown_size_ends_where_its_answer_does(tmp_path: Path) -> None:
    partial = opened(tmp_path, None)
    fill(partial, lambda start, end: Bytes([CONTENT]), Run(Seen()))
    assert partial.digests() == {"sha256": DIGEST}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_pause", lambda *_: 0.0)
