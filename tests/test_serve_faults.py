"""What upstream, the disk and the clients may do wrong to `hubcache serve`, and what comes of it.

No client is ever given a whole file that is wrong, and nothing wrong is ever stored.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.asking import Answer, ask
from tests.support.commandline import CommandLine
from tests.support.faultproxy import FaultProxy
from tests.support.serving import Served
from tests.support.takers import FlippingHub, idle, persist, take
from tests.support.waiting import until
from tests.support.wholeness import digest, faults, partial_bytes

KB, MB = 1 << 10, 1 << 20
SIZE = 24 * MB
WEIGHTS = os.urandom(SIZE)
FILE = "/org/m/resolve/main/model.safetensors"
CONFIG = "/org/m/resolve/main/config.json"
INFO = "/api/models/org/m"
UNKNOWN = ("/org/none/resolve/main/config.json", "/api/models/org/none", "/api/models/org/none/refs")
OVERLAP = 4 * MB
"""Bytes that may be under way when a connection is cut, and so may come twice."""
TIMEOUT = 2.0
RULES = 'serve:\n- {names: ["*"], fresh: 0}\n'
PASSING = 'serve:\n- {names: ["*"], upstream: pass}\n'

pytestmark = pytest.mark.slow


@pytest.fixture
def hub() -> Iterator[FlippingHub]:
    with FlippingHub() as hub:
        yield hub


@pytest.fixture
def line(hub: FlippingHub) -> Iterator[FaultProxy]:
    """The line that bodies come by: what it carries is counted."""
    with FaultProxy(int(hub.cdn_endpoint.rpartition(":")[2])) as proxy:
        hub.cdn_base = proxy.url
        yield proxy


@pytest.fixture
def mirror(hub: FlippingHub, tmp_path: Path) -> Iterator[Served]:
    """A server that believes nothing for long, and is impatient with upstream."""
    with Served(tmp_path, **environ(hub, tmp_path)) as served:
        yield served


def environ(hub: FlippingHub, folder: Path, *rows: str, rules: str = RULES) -> dict[str, str]:
    """Return a server's environment; the rows stand in its mirrors.yaml."""
    file = folder / "mirrors.yaml"
    file.write_text(rules + "".join(f"{row}\n" for row in rows))
    timeouts = dict.fromkeys(("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"), str(int(TIMEOUT)))
    return {"HF_ENDPOINT": hub.endpoint, "HUBCACHE_MIRRORS": str(file), **timeouts}


def blobs(cache: Path) -> list[str]:
    """List the names of the blobs that are whole."""
    return [file.name for file in cache.glob("*--*/blobs/*") if not file.name.endswith(".incomplete")]


def is_stored(cache: Path, content: bytes) -> bool:
    return digest(content, 64) in blobs(cache)


def stored(cache: Path, content: bytes) -> bool:
    """Wait until the content is stored, and tell whether the cache is whole then."""
    until(lambda: is_stored(cache, content), "the file in the cache")
    return not faults(cache)


# -- upstream is killed


@dataclass(frozen=True)
class Outage:
    """What a server answered while upstream was gone for as long as a fill waits for it, and afterwards."""

    cut: Answer
    branch: tuple[Answer, ...]
    cold: Answer
    unknown: tuple[Answer, ...]
    rest: Answer
    fresh: bool
    sent: int
    stored: bool


@pytest.fixture(scope="module")
def outage(tmp_path_factory: pytest.TempPathFactory) -> Outage:
    """Kill upstream while a client takes a file that is not here yet; ask about others; start it again."""
    folder = tmp_path_factory.mktemp("outage")
    with FlippingHub() as hub, FaultProxy(int(hub.cdn_endpoint.rpartition(":")[2])) as line:
        hub.cdn_base = line.url
        hub.add_repo("org/m", {"model.safetensors": WEIGHTS, "config.json": b"{}", "cold.json": b"{ }"})
        with Served(folder, **environ(hub, folder)) as mirror, ThreadPoolExecutor(2) as pool:
            ask(mirror.endpoint, CONFIG)
            hub.rate = MB // 8
            client = pool.submit(ask, mirror.endpoint, FILE)
            until(lambda: line.bytes_down > 2 * MB, "the first bytes")
            hub.stop()
            cold = pool.submit(ask, mirror.endpoint, "/org/m/resolve/main/cold.json")
            branch = tuple(ask(mirror.endpoint, path) for path in (CONFIG, INFO, f"{INFO}/tree/main"))
            unknown = tuple(ask(mirror.endpoint, path) for path in UNKNOWN)
            cut = client.result(60)
            refused = cold.result(60)
            hub.rate = 0
            hub.start()
            rest = ask(mirror.endpoint, FILE, headers={"Range": f"bytes={len(cut.body)}-"})
            is_whole = stored(mirror.cache, WEIGHTS)
            until(lambda: "x-hubcache-stale" not in ask(mirror.endpoint, INFO).headers, "a fresh answer")
            return Outage(cut, branch, refused, unknown, rest, True, line.bytes_down, is_whole)


def test_a_client_is_never_given_a_whole_file_that_upstream_did_not_finish(outage: Outage) -> None:
    assert (outage.cut.status, outage.cut.is_short) == (200, True)
    assert 0 < len(outage.cut.body) < SIZE


def test_who_comes_back_after_an_outage_gets_the_rest(outage: Outage) -> None:
    assert outage.rest.status == 206
    assert outage.cut.body + outage.rest.body == WEIGHTS


def test_a_fill_that_died_with_upstream_goes_on_where_it_stopped(outage: Outage) -> None:
    assert outage.stored
    assert outage.sent < SIZE + OVERLAP


def test_a_cached_branch_is_answered_during_an_outage_and_marked_as_stale(outage: Outage) -> None:
    for got in outage.branch:
        assert got.status == 200
        assert got.commit is not None
        assert got.headers["x-hubcache-stale"].isdigit()
        assert "stale" in got.headers["x-hf-warning"]


def test_a_listed_file_whose_bytes_do_not_come_is_504_with_a_reason(outage: Outage) -> None:
    assert (outage.cold.status, outage.cold.code) == (504, "")
    assert "refused" in outage.cold.headers["x-error-message"]


def test_an_outage_with_nothing_cached_is_504_with_a_reason(outage: Outage) -> None:
    assert [(got.status, got.code) for got in outage.unknown] == [(504, "")] * len(UNKNOWN)
    assert all("refused" in got.headers["x-error-message"] for got in outage.unknown)


def test_a_branch_is_fresh_again_after_an_outage(outage: Outage) -> None:
    assert outage.fresh


def test_an_upstream_that_answers_503_is_an_outage(hub: FlippingHub, mirror: Served) -> None:
    hub.down = True
    got = ask(mirror.endpoint, INFO)
    assert (got.status, got.code, bool(got.headers["x-error-message"])) == (504, "", True)


def test_a_client_waits_through_a_short_outage_and_gets_the_rest(
    hub: FlippingHub, line: FaultProxy, mirror: Served
) -> None:
    hub.add_repo("org/m", {"model.safetensors": WEIGHTS})
    hub.rate = MB // 2
    with ThreadPoolExecutor(1) as pool:
        client = pool.submit(ask, mirror.endpoint, FILE)
        until(lambda: line.bytes_down > 4 * MB, "the first bytes")
        hub.stop()
        hub.rate = 0
        hub.start()
        assert client.result(60).body == WEIGHTS
    assert line.bytes_down < SIZE + OVERLAP


# -- upstream sends wrong bytes


@pytest.mark.parametrize("at", [0, SIZE // 2, SIZE - 1], ids=["first byte", "middle", "last byte"])
def test_wrong_bytes_make_a_short_body_and_are_not_stored(hub: FlippingHub, mirror: Served, at: int) -> None:
    hub.add_repo("org/m", {"model.safetensors": WEIGHTS})
    hub.flips["model.safetensors"] = at
    got = ask(mirror.endpoint, FILE)
    assert (got.status, got.is_short) == (200, True)
    until(lambda: "cannot store" in mirror.log, "the fill's end")
    assert not is_stored(mirror.cache, WEIGHTS)
    assert faults(mirror.cache) == []


def test_a_small_file_of_wrong_bytes_is_refused_as_a_whole(hub: FlippingHub, mirror: Served) -> None:
    hub.add_repo("org/m", {"config.json": b'{"a": 1}'})
    hub.flips["config.json"] = 3
    got = ask(mirror.endpoint, CONFIG)
    assert (got.status, got.code) == (502, "")
    assert hub.endpoint in got.headers["x-error-message"]


def test_who_comes_back_for_the_rest_of_wrong_bytes_gets_all_of_the_right_ones(
    hub: FlippingHub, mirror: Served
) -> None:
    hub.add_repo("org/m", {"model.safetensors": WEIGHTS})
    hub.flips["model.safetensors"] = 100
    cut = ask(mirror.endpoint, FILE)
    assert cut.is_short
    hub.flips.clear()
    until(lambda: ask(mirror.endpoint, INFO).status == 200, "upstream, which is asked again")
    got = until_answered(mirror, {"Range": f"bytes={len(cut.body)}-"})
    assert (got.status, got.body == WEIGHTS) == (200, True)
    assert stored(mirror.cache, WEIGHTS)


def until_answered(mirror: Served, headers: dict[str, str]) -> Answer:
    """Ask until there is an answer with a body."""
    got: list[Answer] = []

    def is_answered() -> bool:
        got.append(ask(mirror.endpoint, FILE, headers=headers))
        return got[-1].status < 300

    until(is_answered, "an answer", seconds=40)
    return got[-1]


def test_one_wrong_file_does_not_keep_others_of_the_same_upstream_from_coming(hub: FlippingHub, mirror: Served) -> None:
    hub.add_repo("org/m", {"model.safetensors": WEIGHTS, "other.bin": WEIGHTS[: 9 * MB]})
    hub.add_repo("org/other", {"config.json": b"{}"})
    hub.flips["model.safetensors"] = 100
    assert ask(mirror.endpoint, FILE).is_short
    until(lambda: "cannot store" in mirror.log, "the fill's end")
    assert ask(mirror.endpoint, "/org/m/resolve/main/other.bin").body == WEIGHTS[: 9 * MB]
    assert ask(mirror.endpoint, "/org/other/resolve/main/config.json").body == b"{}"


def test_a_sound_mirror_makes_up_for_one_that_sends_wrong_bytes(hub: FlippingHub, tmp_path: Path) -> None:
    with FlippingHub() as sound:
        for each in (hub, sound):
            each.add_repo("org/m", {"model.safetensors": WEIGHTS})
        hub.flips["model.safetensors"] = 100
        row = f"mirrors:\n- {{name: sound, url: '{sound.endpoint}', hub: huggingface}}"
        with Served(tmp_path, **environ(hub, tmp_path, row)) as mirror:
            assert persist(mirror.endpoint, FILE, SIZE) == WEIGHTS
            assert ask(mirror.endpoint, FILE).body == WEIGHTS
            assert stored(mirror.cache, WEIGHTS)


DOWNLOAD = """
import sys
from huggingface_hub import hf_hub_download
print(hf_hub_download("org/m", "model.safetensors"))
"""


def test_huggingface_hub_never_ends_with_a_wrong_file(hub: FlippingHub, mirror: Served, tmp_path: Path) -> None:
    hub.add_repo("org/m", {"model.safetensors": WEIGHTS})
    hub.flips["model.safetensors"] = 100
    client = CommandLine(tmp_path / "client", HF_ENDPOINT=mirror.endpoint)
    ran = client.python(DOWNLOAD, HF_HUB_OFFLINE="0")
    assert (ran.code, blobs(client.cache)) == (1, [])
    hub.flips.clear()
    until_answered(mirror, {"Range": "bytes=0-9"})
    ran = client.python(DOWNLOAD, HF_HUB_OFFLINE="0")
    assert Path(ran.out.strip()).read_bytes() == WEIGHTS


@pytest.mark.parametrize("garbage", [b"<html>log in here</html>", b'{"sha": 1}', b"[]"], ids=["page", "no sha", "list"])
def test_an_answer_that_makes_no_sense_counts_as_none(hub: FlippingHub, mirror: Served, garbage: bytes) -> None:
    commit = hub.add_repo("org/m", {"config.json": b"{}"})
    ask(mirror.endpoint, INFO)
    hub.garbage = garbage
    got = ask(mirror.endpoint, INFO)
    assert (got.status, got.commit, "x-hubcache-stale" in got.headers) == (200, commit, True)
    assert ask(mirror.endpoint, UNKNOWN[0]).status in {502, 504}


def test_wrong_bytes_that_pass_by_make_a_short_body_and_no_one_gets_only_the_rest(
    hub: FlippingHub, tmp_path: Path
) -> None:
    hub.add_repo("org/m", {"model.safetensors": WEIGHTS})
    hub.flips["model.safetensors"] = 100
    with Served(tmp_path, **environ(hub, tmp_path, rules=PASSING)) as mirror:
        cut = ask(mirror.endpoint, FILE)
        assert (cut.status, cut.is_short) == (200, True)
        hub.flips.clear()
        got = ask(mirror.endpoint, FILE, headers={"Range": f"bytes={len(cut.body)}-"})
        assert (got.status, got.body == WEIGHTS, blobs(mirror.cache)) == (200, True, [])


# -- upstream falls silent


def test_a_cached_branch_is_answered_within_seconds_though_upstream_is_silent(hub: FlippingHub, mirror: Served) -> None:
    hub.add_repo("org/m", {"config.json": b"{}"})
    ask(mirror.endpoint, INFO)
    hub.delay = 60
    began = time.monotonic()
    got = ask(mirror.endpoint, INFO)
    assert (got.status, "x-hubcache-stale" in got.headers) == (200, True)
    assert time.monotonic() - began < 5
    hub.stop()


def test_a_silent_upstream_is_504_within_the_time_outs_where_nothing_is_cached(
    hub: FlippingHub, mirror: Served
) -> None:
    hub.delay = 60
    began = time.monotonic()
    assert ask(mirror.endpoint, FILE).status == 504
    assert time.monotonic() - began < 3 * TIMEOUT
    hub.stop()


def test_many_questions_that_wait_for_a_silent_upstream_do_not_hold_up_what_is_cached(
    hub: FlippingHub, tmp_path: Path
) -> None:
    commit = hub.add_repo("org/m", {"config.json": b"{}"})
    variables = environ(hub, tmp_path) | {"HF_HUB_DOWNLOAD_TIMEOUT": "12"}
    with Served(tmp_path, **variables) as mirror, ThreadPoolExecutor(100) as pool:
        ask(mirror.endpoint, CONFIG)
        hub.delay = 60
        waiting = [pool.submit(ask, mirror.endpoint, f"/api/models/cold/m{n}") for n in range(100)]
        until(lambda: len(hub.requests) > 20, "questions at upstream")
        for path in ("/healthz", INFO, f"/org/m/resolve/{commit}/config.json"):
            began = time.monotonic()
            assert ask(mirror.endpoint, path).status == 200
            assert time.monotonic() - began < 5
        hub.stop()
        assert {each.result(60).status for each in waiting} == {504}


def test_a_body_that_falls_silent_comes_whole_once_upstream_speaks_again(hub: FlippingHub, mirror: Served) -> None:
    hub.add_repo("org/m", {"model.safetensors": WEIGHTS})
    hub.stall["model.safetensors"] = MB
    with ThreadPoolExecutor(1) as pool:
        client = pool.submit(ask, mirror.endpoint, FILE)
        until(lambda: partial_bytes(mirror.cache) > MB, "the bytes before the silence")
        hub.stall.clear()
        assert client.result(60).body == WEIGHTS


# -- the server is killed


def test_a_server_killed_under_load_leaves_a_whole_cache_and_goes_on_there(
    hub: FlippingHub, line: FaultProxy, tmp_path: Path
) -> None:
    files = {f"{n}.bin": WEIGHTS[n * MB : (n + 10) * MB] for n in range(6)}
    hub.add_repo("org/m", files)
    hub.rate = 4 * MB
    variables = environ(hub, tmp_path)
    with Served(tmp_path, **variables) as first, ThreadPoolExecutor(12) as pool:
        clients = {
            pool.submit(persist, first.endpoint, f"/org/m/resolve/main/{name}", len(content)): content
            for name, content in [*files.items()] * 2
        }
        until(lambda: line.bytes_down > 20 * MB, "bytes of all files")
        first.kill()
        assert faults(first.cache) == []
        with Served(tmp_path, port=first.port, **variables) as second:
            assert all(client.result(60) == content for client, content in clients.items())
            assert all(stored(second.cache, content) for content in files.values())
    assert line.bytes_down < 60 * MB + 6 * OVERLAP


# -- the disk is full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 64 MiB."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(mounted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


def fill_disk(folder: Path, leave: int) -> Path:
    """Write a file that leaves so many bytes free."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while (status := os.statvfs(folder)).f_bavail * status.f_frsize > leave:
            file.write(bytes(64 * KB))
    return ballast


def test_a_file_without_room_on_the_disk_is_handed_on_and_kept_once_there_is_room(
    hub: FlippingHub, small_disk: Path
) -> None:
    hub.add_repo("org/m", {"model.safetensors": WEIGHTS})
    with Served(small_disk, **environ(hub, small_disk)) as mirror:
        ballast = fill_disk(small_disk, 20 * MB)
        assert take(mirror.endpoint, FILE, WEIGHTS) == SIZE
        assert (blobs(mirror.cache), faults(mirror.cache)) == ([], [])
        ballast.unlink()
        assert take(mirror.endpoint, FILE, WEIGHTS) == SIZE
        assert stored(mirror.cache, WEIGHTS)


def test_wrong_bytes_that_are_only_handed_on_make_a_short_body_and_no_one_gets_only_the_rest(
    hub: FlippingHub, small_disk: Path
) -> None:
    hub.add_repo("org/m", {"model.safetensors": WEIGHTS})
    hub.flips["model.safetensors"] = 100
    with Served(small_disk, **environ(hub, small_disk)) as mirror:
        fill_disk(small_disk, 20 * MB)
        cut = ask(mirror.endpoint, FILE)
        assert cut.is_short
        hub.flips.clear()
        got = ask(mirror.endpoint, FILE, headers={"Range": f"bytes={len(cut.body)}-"})
    assert (got.status, got.body == WEIGHTS) == (200, True)


def test_a_disk_that_fills_up_midway_cuts_the_body_and_the_file_comes_all_the_same(
    hub: FlippingHub, small_disk: Path
) -> None:
    hub.add_repo("org/m", {"model.safetensors": WEIGHTS})
    hub.stall["model.safetensors"] = MB
    with Served(small_disk, **environ(hub, small_disk)) as mirror, ThreadPoolExecutor(1) as pool:
        client = pool.submit(persist, mirror.endpoint, FILE, SIZE)
        until(lambda: partial_bytes(mirror.cache) > 2 * MB, "the first bytes")
        ballast = fill_disk(small_disk, 0)
        hub.stall.clear()
        until(lambda: "cannot store" in mirror.log, "the disk's end")
        assert client.result(60) == WEIGHTS
        assert (blobs(mirror.cache), faults(mirror.cache)) == ([], [])
        ballast.unlink()
        assert take(mirror.endpoint, FILE, WEIGHTS) == SIZE
        assert stored(mirror.cache, WEIGHTS)


# -- many clients


def test_200_clients_get_a_cold_file_that_upstream_sends_once(
    hub: FlippingHub, line: FaultProxy, mirror: Served
) -> None:
    content = WEIGHTS + WEIGHTS[: 8 * MB]
    hub.add_repo("org/m", {"model.safetensors": content})
    hub.rate = 2 * MB
    with ThreadPoolExecutor(200) as pool:
        clients = [pool.submit(take, mirror.endpoint, FILE, content) for _ in range(200)]
        assert {client.result(60) for client in clients} == {len(content)}
    assert line.bytes_down < len(content) + MB
    assert stored(mirror.cache, content)


def test_clients_that_leave_early_do_not_stop_the_fill(hub: FlippingHub, line: FaultProxy, mirror: Served) -> None:
    hub.add_repo("org/m", {"model.safetensors": WEIGHTS})
    hub.rate = 2 * MB
    with ThreadPoolExecutor(60) as pool:
        leaving = [pool.submit(take, mirror.endpoint, FILE, WEIGHTS, most=1) for _ in range(30)]
        staying = [pool.submit(take, mirror.endpoint, FILE, WEIGHTS) for _ in range(30)]
        assert all(client.result(60) < SIZE for client in leaving)
        assert {client.result(60) for client in staying} == {SIZE}
    assert line.bytes_down < SIZE + MB


def test_a_fill_goes_on_when_its_only_client_has_left(hub: FlippingHub, line: FaultProxy, mirror: Served) -> None:
    hub.add_repo("org/m", {"model.safetensors": WEIGHTS})
    hub.rate = 2 * MB
    assert take(mirror.endpoint, FILE, WEIGHTS, most=1) < SIZE
    assert stored(mirror.cache, WEIGHTS)
    assert line.bytes_down < SIZE + MB


def test_clients_that_take_nothing_do_not_hold_up_the_others(hub: FlippingHub, mirror: Served) -> None:
    hub.add_repo("org/m", {"model.safetensors": WEIGHTS})
    idlers = [idle(mirror.port, FILE) for _ in range(20)]
    try:
        assert take(mirror.endpoint, FILE, WEIGHTS) == SIZE
        assert stored(mirror.cache, WEIGHTS)
        assert take(mirror.endpoint, FILE, WEIGHTS) == SIZE
    finally:
        for each in idlers:
            each.close()


# -- ranges of a file that is on its way


def test_a_range_far_behind_comes_long_before_the_whole_file(
    hub: FlippingHub, line: FaultProxy, mirror: Served
) -> None:
    content = WEIGHTS * 2 + WEIGHTS[: 16 * MB]
    hub.add_repo("org/m", {"model.safetensors": content})
    hub.rate = MB
    start, end = len(content) - MB, len(content) - 128 * KB
    got = ask(mirror.endpoint, FILE, headers={"Range": f"bytes={start}-{end - 1}"})
    assert (got.status, got.body == content[start:end]) == (206, True)
    assert line.bytes_down < len(content) // 3
    hub.rate = 0
    assert stored(mirror.cache, content)
