"""What upstream and the disk may do wrong, and what a pull makes of it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hubcache_cli.errors import exit_code

from hubcache import fetch
from hubcache.app import usecases
from hubcache.cache import store as cache_store
from hubcache.errors import DiskFull, IntegrityError, NotFound, SourceUnavailable
from tests.support.faultproxy import Fault, FaultProxy
from tests.support.httpd import Reply, Request
from tests.support.loophub import LoopHub
from tests.support.loopserver import LoopServer, json_reply
from tests.support.objectstore import ObjectStore
from tests.support.puller import Puller, Seen, asked_bytes, bodies
from tests.support.wholeness import faults, unverified

KB = 1024
SIZE = 400 * KB
WEIGHTS = os.urandom(SIZE)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}


@pytest.fixture
def hub() -> Iterator[LoopHub]:
    with LoopHub() as server:
        server.add_repo("org/m", FILES)
        yield server


@pytest.fixture
def puller(hub: LoopHub, tmp_path: Path) -> Puller:
    return Puller.into(tmp_path / "hub", hub.endpoint)


@pytest.fixture
def by_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the weights go by four ranges."""
    monkeypatch.setattr(fetch, "SMALL", 50 * KB)
    monkeypatch.setattr(fetch, "SMALLEST_PIECE", 100 * KB)


def blobs(puller: Puller) -> list[str]:
    return [
        file.name for file in puller.settings.hub_cache.glob("*--*/blobs/*") if not file.name.endswith(".incomplete")
    ]


def is_right(puller: Puller, text: str = "org/m") -> bool:
    """Tell whether a pull goes through and leaves the right bytes in a whole cache."""
    snapshot = puller(text).path
    return not unverified(snapshot) and not faults(puller.settings.hub_cache)


# -- wrong bytes


def test_wrong_bytes_are_refused_in_the_name_of_the_mirror_that_sent_them(hub: LoopHub, puller: Puller) -> None:
    hub.corrupt.add("model.safetensors")
    with pytest.raises(IntegrityError, match=hub.endpoint) as caught:
        puller("org/m")
    assert exit_code(caught.value) == 6


@pytest.mark.parametrize("ranges", [False, True])
def test_nothing_of_wrong_bytes_is_kept(
    hub: LoopHub, puller: Puller, ranges: bool, request: pytest.FixtureRequest
) -> None:
    if ranges:
        request.getfixturevalue("by_ranges")
    hub.corrupt.add("model.safetensors")
    with pytest.raises(IntegrityError):
        puller("org/m")
    assert hub.files("org/m")["model.safetensors"].etag not in blobs(puller)
    hub.corrupt.clear()
    hub.clear()
    assert is_right(puller)
    assert asked_bytes(hub, SIZE, containing="xet-bridge") == SIZE


def test_wrong_bytes_of_an_earlier_process_are_fetched_again_without_blaming_the_mirror(
    hub: LoopHub, puller: Puller
) -> None:
    leave_partial(hub, puller, b"wrong" * 1000)
    assert is_right(puller)
    assert bodies(hub, containing="xet-bridge") == [f"bytes=5000-{SIZE - 1}", f"bytes=0-{SIZE - 1}"]


def test_wrong_bytes_after_wrong_earlier_ones_are_tried_once_more_and_no_oftener(hub: LoopHub, puller: Puller) -> None:
    leave_partial(hub, puller, b"wrong" * 1000)
    hub.corrupt.add("model.safetensors")
    with pytest.raises(IntegrityError, match=hub.endpoint):
        puller("org/m")
    assert len(bodies(hub, containing="xet-bridge")) == 2


def leave_partial(hub: LoopHub, puller: Puller, content: bytes) -> None:
    """Leave what an interrupted process would leave of the weights."""
    folder = puller.settings.hub_cache / "models--org--m" / "blobs"
    folder.mkdir(parents=True)
    (folder.parent / "snapshots").mkdir()
    (folder / f"{hub.files('org/m')['model.safetensors'].etag}.0123abcd.incomplete").write_bytes(content)


# -- broken transfers


def test_a_body_cut_short_goes_on_where_it_broke_off(hub: LoopHub, puller: Puller) -> None:
    hub.truncate["model.safetensors"] = 150 * KB
    assert is_right(puller)
    starts = [150 * KB * n for n in range(3)]
    assert bodies(hub, containing="xet-bridge") == [f"bytes={start}-{SIZE - 1}" for start in starts]


@pytest.mark.usefixtures("by_ranges")
def test_ranges_cut_short_go_on_where_they_broke_off(hub: LoopHub, puller: Puller) -> None:
    hub.truncate["model.safetensors"] = 60 * KB
    assert is_right(puller)
    assert asked_bytes(hub, SIZE, containing="xet-bridge") == SIZE + 4 * 40 * KB


@pytest.mark.slow
def test_a_silent_server_is_left_after_the_read_timeout_and_asked_for_the_rest(hub: LoopHub, puller: Puller) -> None:
    hub.stall["model.safetensors"] = 300 * KB
    assert is_right(puller)
    assert bodies(hub, containing="xet-bridge") == [f"bytes=0-{SIZE - 1}", f"bytes={300 * KB}-{SIZE - 1}"]


def test_reset_connections_are_made_again(hub: LoopHub, puller: Puller) -> None:
    with FaultProxy(int(hub.cdn_endpoint.rpartition(":")[2])) as proxy:
        hub.cdn_base = proxy.url
        proxy.inject(Fault(refuse=True))
        proxy.inject(Fault(reset_after=200 * KB))
        assert is_right(puller)


def test_a_byte_flipped_on_the_way_is_noticed(hub: LoopHub, puller: Puller) -> None:
    with FaultProxy(int(hub.cdn_endpoint.rpartition(":")[2])) as proxy:
        hub.cdn_base = proxy.url
        proxy.fault = Fault(corrupt_at=200 * KB)
        with pytest.raises(IntegrityError, match=hub.endpoint):
            puller("org/m")


@pytest.mark.usefixtures("by_ranges")
def test_a_server_that_ignores_ranges_sends_the_whole_file_once(hub: LoopHub, puller: Puller) -> None:
    hub.ignore_ranges = True
    assert is_right(puller)
    assert len(bodies(hub, containing="xet-bridge")) == 1


@pytest.mark.usefixtures("by_ranges")
def test_a_whole_file_cut_short_by_a_server_that_ignores_ranges_is_asked_for_again(
    hub: LoopHub, puller: Puller
) -> None:
    hub.ignore_ranges = True
    with FaultProxy(int(hub.cdn_endpoint.rpartition(":")[2])) as proxy:
        hub.cdn_base = proxy.url
        proxy.inject(Fault(truncate_after=250 * KB))
        assert is_right(puller)


@pytest.mark.parametrize("ranges", [False, True])
def test_a_resumed_file_is_right_although_ranges_are_ignored(
    hub: LoopHub, puller: Puller, ranges: bool, request: pytest.FixtureRequest
) -> None:
    if ranges:
        request.getfixturevalue("by_ranges")
    leave_partial(hub, puller, WEIGHTS[: 130 * KB])
    hub.ignore_ranges = True
    seen = Seen()
    assert not unverified(puller("org/m", seen).path)
    assert (seen.by_origin["resumed"], seen.received) == (130 * KB, SIZE + len(FILES["config.json"]) - 130 * KB)


def test_a_redirect_loop_is_an_error_in_bounded_time(hub: LoopHub, puller: Puller) -> None:
    hub.redirect_loop.add("config.json")
    with pytest.raises(SourceUnavailable, match="redirects"):
        with_few_attempts(puller)


def with_few_attempts(puller: Puller) -> None:
    """Pull with one attempt for each range, so that an error that stays need not be waited for."""
    patch = pytest.MonkeyPatch()
    patch.setattr(fetch.TransferLimits.__init__, "__defaults__", (16, 2, 4, 1))
    try:
        puller("org/m")
    finally:
        patch.undo()


# -- answers that are none


@pytest.mark.slow
def test_an_answer_429_is_asked_again_after_the_time_it_names(hub: LoopHub, puller: Puller) -> None:
    hub.rate_limit, hub.retry_after = 2, 1
    assert is_right(puller)


def test_answers_503_for_a_body_are_asked_again(hub: LoopHub, puller: Puller) -> None:
    hub.fail_origin["cdn"] = [503, 502]
    assert is_right(puller)


def test_answers_503_for_the_commit_are_asked_again(hub: LoopHub, puller: Puller) -> None:
    hub.fail_next = [503]
    assert is_right(puller)


@pytest.mark.slow
def test_a_hub_that_is_down_leaves_what_the_cache_has_and_says_so(hub: LoopHub, puller: Puller) -> None:
    commit = puller("org/m").artifact.revision.commit
    hub.down = True
    seen = Seen()
    assert puller("org/m", seen).artifact.revision.commit == commit
    assert any("503" in line and "as cached" in line for line in seen.lines)


def test_a_hub_that_cannot_be_reached_and_nothing_cached_is_exit_code_5(hub: LoopHub, puller: Puller) -> None:
    hub.stop()
    with pytest.raises(SourceUnavailable) as caught:
        puller("org/m")
    assert exit_code(caught.value) == 5


def test_an_unreachable_hub_never_makes_a_listing_of_what_is_there_by_chance(
    hub: LoopHub, puller: Puller, tmp_path: Path
) -> None:
    snapshot = puller("org/m", include=("config.json",)).path
    listing = snapshot.parent.parent / "trees" / f"{snapshot.name}.json"
    listing.unlink()  # as after hf_hub_download, which writes none
    hub.stop()
    puller("org/m")
    assert not listing.exists()


def test_a_pull_of_what_is_cached_keeps_what_was_known_of_its_origin(tmp_path: Path) -> None:
    with ObjectStore({"weights.bin": WEIGHTS}) as server:
        puller = Puller.into(tmp_path / "hub")
        puller(server.url("weights.bin"))
        server.stop()
        puller(server.url("weights.bin"))
        server.start()
        server.clear()
        puller(server.url("weights.bin"))
        assert set(bodies(server)) == {"bytes=0-0"}


# -- lies


class Liar(LoopServer):
    """A hub of one repo org/m, whose answers to one path each are replaced."""

    def __init__(self, commit: object = "a" * 40, path: str = "config.json", oid: str = "b" * 40) -> None:
        super().__init__(hub=self._hub)
        self._commit, self._path, self._oid = commit, path, oid

    @property
    def endpoint(self) -> str:
        return self._origins["hub"].url

    def _hub(self, request: Request) -> Reply:
        if "/tree/" in request.path:
            return json_reply([{"type": "file", "path": self._path, "size": 2, "oid": self._oid}])
        if "/revision/" in request.path:
            return json_reply({"id": "org/m", "sha": self._commit})
        return Reply(200, {}, b"{}")


LIES: list[dict[str, object]] = [
    {"commit": "../../../x"},
    {"commit": "A" * 40},
    {"commit": "a" * 39},
    {"commit": None},
    {"commit": 7},
    {"path": "../../x"},
    {"path": "/x"},
    {"path": "a\\..\\x"},
    {"path": "a//x"},
    {"path": ""},
    {"oid": "../../../../x"},
    {"oid": "B" * 40},
    {"oid": "sha256:" + "b" * 57},
]


@pytest.mark.parametrize("lie", LIES, ids=json.dumps)
def test_a_name_that_is_none_is_refused_and_leaves_nothing_outside_the_cache(
    lie: dict[str, object], tmp_path: Path
) -> None:
    cache = tmp_path / "in" / "hub"
    with Liar(**lie) as server, pytest.raises((SourceUnavailable, IntegrityError)):  # type: ignore[arg-type]
        Puller.into(cache, server.endpoint)("org/m")
    written = {file for file in tmp_path.rglob("*") if file.is_file() or file.is_symlink()}
    allowed = [cache / ".locks", cache / "CACHEDIR.TAG", cache.parent / "home"]  # a mirror's health is kept at home
    assert [file for file in written if not any(file.is_relative_to(place) for place in allowed)] == []
    assert faults(cache) == []


class Ranger(LoopServer):
    """A hub of one file whose answers to ranges are made by a function (content, start, end) -> Reply."""

    def __init__(self, answer: Callable[[bytes, int, int], Reply]) -> None:
        super().__init__(hub=self._hub)
        self._answer_range = answer

    @property
    def endpoint(self) -> str:
        return self._origins["hub"].url

    def _hub(self, request: Request) -> Reply:
        if "/tree/" in request.path:
            oid = subprocess.run(["git", "hash-object", "--stdin"], input=WEIGHTS, capture_output=True, check=True)
            row = {"type": "file", "path": "w.txt", "size": SIZE, "oid": oid.stdout.decode().strip()}
            return json_reply([row])
        if "/revision/" in request.path:
            return json_reply({"id": "org/m", "sha": "a" * 40})
        first, _, last = request.headers.get("range", f"bytes=0-{SIZE - 1}").removeprefix("bytes=").partition("-")
        return self._answer_range(WEIGHTS, int(first), int(last or SIZE - 1) + 1)


def part(content: bytes, start: int, end: int, *, total: int | str = SIZE) -> Reply:
    return Reply(206, {"Content-Range": f"bytes {start}-{end - 1}/{total}"}, content[start:end])


@pytest.mark.usefixtures("by_ranges")
def test_a_range_shorter_than_asked_is_followed_by_a_request_for_the_rest(tmp_path: Path) -> None:
    with Ranger(lambda content, start, end: part(content, start, min(end, start + 30 * KB))) as server:
        assert is_right(Puller.into(tmp_path / "hub", server.endpoint))


@pytest.mark.usefixtures("by_ranges")
def test_a_range_longer_than_asked_is_taken(tmp_path: Path) -> None:
    with Ranger(lambda content, start, end: part(content, start, min(SIZE, end + 10 * KB))) as server:
        assert is_right(Puller.into(tmp_path / "hub", server.endpoint))


@pytest.mark.usefixtures("by_ranges")
def test_a_range_of_unknown_whole_is_taken(tmp_path: Path) -> None:
    with Ranger(lambda content, start, end: part(content, start, end, total="*")) as server:
        assert is_right(Puller.into(tmp_path / "hub", server.endpoint))


def test_a_range_of_a_file_of_another_size_is_a_wrong_answer(tmp_path: Path) -> None:
    with (
        Ranger(lambda content, start, end: part(content, start, end, total=SIZE + 1)) as server,
        pytest.raises(IntegrityError, match=server.endpoint),
    ):
        Puller.into(tmp_path / "hub", server.endpoint)("org/m")


def test_a_range_that_is_none_is_a_wrong_answer(tmp_path: Path) -> None:
    answer = Reply(206, {"Content-Range": "bytes one-two/three"}, WEIGHTS)
    with Ranger(lambda *_: answer) as server, pytest.raises(IntegrityError, match="Content-Range"):
        Puller.into(tmp_path / "hub", server.endpoint)("org/m")


@pytest.mark.parametrize(
    "answer",
    [
        lambda content, start, end: part(content, start + 10, end),
        lambda content, start, end: Reply(416, {"Content-Range": "bytes */3"}),
        lambda content, start, end: Reply(206, {"Content-Range": f"bytes {start}-{end - 1}/{SIZE}"}),
    ],
    ids=["another range", "416", "an empty one"],
)
@pytest.mark.usefixtures("by_ranges")
def test_an_answer_that_brings_no_byte_ends_in_an_error_after_so_many_tries(
    answer: Callable[[bytes, int, int], Reply], tmp_path: Path
) -> None:
    with Ranger(answer) as server, pytest.raises(SourceUnavailable):
        with_few_attempts(Puller.into(tmp_path / "hub", server.endpoint))


# -- sizes at the edges


@pytest.mark.usefixtures("by_ranges")
@pytest.mark.parametrize("size", [0, 1, 50 * KB, 50 * KB + 1, 100 * KB, 100 * KB + 1, 200 * KB])
def test_files_of_sizes_at_the_edges_come_right(hub: LoopHub, puller: Puller, size: int) -> None:
    hub.add_repo("org/edge", {"edge.bin": os.urandom(size)})
    assert is_right(puller, "org/edge")


def test_an_empty_file_costs_no_request(hub: LoopHub, puller: Puller) -> None:
    hub.add_repo("org/edge", {"empty.txt": b""})
    puller("org/edge")
    assert bodies(hub) == []


# -- the disk


def test_a_disk_that_is_too_small_is_told_before_any_body_is_asked_for(
    hub: LoopHub, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_store, "free_space", lambda _: cache_store.RESERVE + SIZE - 1)
    with pytest.raises(DiskFull) as caught:
        puller("org/m")
    assert (bodies(hub), exit_code(caught.value)) == ([], 8)


def test_what_was_left_by_an_earlier_process_counts_as_room(
    hub: LoopHub, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_partial(hub, puller, WEIGHTS[: 200 * KB])
    monkeypatch.setattr(cache_store, "free_space", lambda _: cache_store.RESERVE + 201 * KB)
    assert is_right(puller)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 1 MiB."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mounted)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


@pytest.mark.usefixtures("by_ranges")
@pytest.mark.parametrize("count", [1, 4])
def test_a_disk_that_fills_up_midway_is_told_and_the_pull_goes_on_once_there_is_room(
    hub: LoopHub, small_disk: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_store, "free_space", lambda _: 1 << 40)
    hub.add_repo("org/big", {f"{n}.bin": os.urandom(900 * KB // count) for n in range(count)})
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(512 * KB))
    puller = Puller.into(small_disk / "hub", hub.endpoint)
    with pytest.raises(DiskFull) as caught:
        puller("org/big")
    assert exit_code(caught.value) == 8
    assert faults(small_disk / "hub") == []
    ballast.unlink()
    seen = Seen()
    assert not unverified(puller("org/big", seen).path)
    assert seen.received < 800 * KB


def test_a_full_disk_is_no_reason_to_give_up_links(
    hub: LoopHub, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", full)
        with pytest.raises(DiskFull):
            puller("org/m")
    assert (puller("org/m").path / "config.json").is_symlink()


# -- the way files are kept changes


def test_real_files_of_shared_bytes_are_right(hub: LoopHub, puller: Puller) -> None:
    hub.add_repo("org/m", {"a.bin": WEIGHTS, "b/c.bin": WEIGHTS, "d.bin": WEIGHTS})
    assert is_right(puller.having(symlinks=False))
    assert (asked_bytes(hub, SIZE), blobs(puller)) == (SIZE, [])


def test_real_files_survive_a_pull_that_makes_links(hub: LoopHub, puller: Puller) -> None:
    puller.having(symlinks=False)("org/m")
    assert is_right(puller.having(symlinks=True))
    assert bodies(hub, containing="xet-bridge") == [f"bytes=0-{SIZE - 1}"]


def test_links_survive_a_pull_that_makes_real_files(hub: LoopHub, puller: Puller) -> None:
    first = puller.having(symlinks=True)("org/m").path
    hub.add_commit("org/m", {"README.md": b"new"})
    second = puller.having(symlinks=False)("org/m").path
    assert [unverified(snapshot) for snapshot in (first, second)] == [[], []]
    assert faults(puller.settings.hub_cache) == []


def test_without_links_a_new_commit_takes_unchanged_files_from_the_old_one(hub: LoopHub, puller: Puller) -> None:
    real = puller.having(symlinks=False)
    real("org/m")
    hub.add_commit("org/m", {"README.md": b"new", "copy.safetensors": WEIGHTS})
    hub.clear()
    assert not unverified(real("org/m").path)
    assert bodies(hub, containing="xet-bridge") == []


def test_planning_without_links_writes_nothing(hub: LoopHub, puller: Puller) -> None:
    real = puller.having(symlinks=False)
    real("org/m")
    commit = hub.add_commit("org/m", {"README.md": b"new"})
    usecases.preview(real.app, usecases.PullRequest("org/m"), notify=lambda _: None)
    assert not (puller.settings.hub_cache / "models--org--m" / "snapshots" / commit).exists()


def test_a_name_of_255_bytes_is_kept(hub: LoopHub, puller: Puller) -> None:
    hub.add_repo("org/long", {"n" * 255: b"long"})
    assert is_right(puller.having(symlinks=False), "org/long")


def test_a_missing_repo_is_an_answer(hub: LoopHub, puller: Puller) -> None:
    with pytest.raises(NotFound) as caught:
        puller("org/none")
    assert exit_code(caught.value) == 4


def test_a_cache_on_a_read_only_disk_answers_a_warm_pull(
    hub: LoopHub, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_store, "RESERVE", 0)
    puller = Puller.into(small_disk / "hub", hub.endpoint)
    path = puller("org/m").path
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert puller("org/m").path == path
