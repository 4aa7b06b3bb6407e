"""A real process that is killed, or interrupted: the cache stays whole, and the next process goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archives import pack
from tests.support.loophub import LoopHub
from tests.support.loopserver import LoopServer
from tests.support.loopzoo import LoopZoo
from tests.support.objectstore import ObjectStore
from tests.support.puller import Process, asked_bytes, bodies
from tests.support.waiting import until
from tests.support.wholeness import faults, partial_bytes, unverified

MB = 1 << 20
STUB = "zoo:nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/pruned90-none"
SMALL_SIZE, LARGE_SIZE = 6 * MB, 40 * MB  # below fetch.SMALL: in order; above: by ranges
KEPT = 2 * MB
PROBE = "bytes=0-0"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small() -> bytes:
    return os.urandom(SMALL_SIZE)


@pytest.fixture(scope="module")
def large() -> bytes:
    return os.urandom(LARGE_SIZE)


@pytest.fixture
def hub() -> Iterator[LoopHub]:
    with LoopHub() as server:
        yield server


@pytest.fixture
def zoo() -> Iterator[LoopZoo]:
    with LoopZoo() as server:
        yield server


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with ObjectStore() as server:
        yield server


def environ(**more: str) -> dict[str, str]:
    return {"HF_HUB_DOWNLOAD_TIMEOUT": "60", **more}


def killed_midway(cache: Path, text: str, variables: dict[str, str], server: LoopServer, size: int) -> None:
    """Pull from a server that falls silent within the body, and kill the process there."""
    process = Process(cache, text, environ=variables)
    until(lambda: partial_bytes(cache) >= size, "the bytes before the silence")
    process.kill()
    assert faults(cache) == []
    server.stop()
    server.clear()
    server.stall.clear()
    server.start()


def noted_bytes(cache: Path) -> int:
    """Add up the ranges that a dead process's journal notes; a byte is written once, so none overlap."""
    (journal,) = cache.rglob("*.ranges.incomplete")
    ranges = [line.split() for line in journal.read_text().splitlines() if line]
    return sum(int(end) - int(start) for start, end in ranges)


def completed(cache: Path, text: str, variables: dict[str, str]) -> Path:
    code, out, err = Process(cache, text, environ=variables).wait()
    assert code == 0, err
    snapshot = Path(out.strip())
    assert (unverified(snapshot), faults(cache)) == ([], [])
    return snapshot


def test_a_killed_pull_of_a_small_file_goes_on_at_the_byte_it_reached(
    hub: LoopHub, small: bytes, tmp_path: Path
) -> None:
    hub.add_repo("org/m", {"small.bin": small})
    hub.stall["small.bin"] = KEPT
    cache, variables = tmp_path / "hub", environ(HF_ENDPOINT=hub.endpoint)
    killed_midway(cache, "org/m", variables, hub, KEPT)
    completed(cache, "org/m", variables)
    assert bodies(hub) == [f"bytes={KEPT}-{SMALL_SIZE - 1}"]


def test_a_killed_pull_by_ranges_asks_only_for_what_no_range_brought(
    hub: LoopHub, large: bytes, tmp_path: Path
) -> None:
    hub.add_repo("org/m", {"large.bin": large})
    hub.stall["large.bin"] = KEPT
    cache, variables = tmp_path / "hub", environ(HF_ENDPOINT=hub.endpoint)
    killed_midway(cache, "org/m", variables, hub, 4 * KEPT)
    noted = noted_bytes(cache)
    assert noted >= 2 * KEPT
    completed(cache, "org/m", variables)
    assert asked_bytes(hub, LARGE_SIZE) == LARGE_SIZE - noted


def test_a_pull_killed_twice_while_bytes_trickle_in_asks_for_no_byte_it_had(
    hub: LoopHub, large: bytes, tmp_path: Path
) -> None:
    hub.add_repo("org/m", {"large.bin": large})
    hub.rate = 8 * MB
    cache, variables = tmp_path / "hub", environ(HF_ENDPOINT=hub.endpoint)
    for reached in (4 * MB, 12 * MB):
        process = Process(cache, "org/m", environ=variables)
        until(lambda reached=reached: partial_bytes(cache) >= reached, f"{reached} bytes")  # type: ignore[misc]
        process.kill()
        assert faults(cache) == []
    had = partial_bytes(cache)
    hub.clear()
    hub.rate = 0
    completed(cache, "org/m", variables)
    # A chunk that was written and not yet noted comes again: one of each connection at most.
    assert asked_bytes(hub, LARGE_SIZE) <= LARGE_SIZE - had + 4 * MB


def test_a_killed_pull_of_an_archive_goes_on_at_the_byte_it_reached(
    store: ObjectStore, small: bytes, tmp_path: Path
) -> None:
    archive = pack({"m/config.json": b"{}", "m/weights.bin": small}, ".tar.gz")
    store.put("m.tar.gz", archive)
    store.stall["m.tar.gz"] = KEPT
    cache, variables = tmp_path / "hub", environ()
    killed_midway(cache, store.url("m.tar.gz"), variables, store, KEPT)
    completed(cache, store.url("m.tar.gz"), variables)
    assert [asked for asked in bodies(store) if asked != PROBE] == [f"bytes={KEPT}-{len(archive) - 1}"]


def test_a_killed_pull_of_a_zoo_model_fetches_only_the_rest(zoo: LoopZoo, small: bytes, tmp_path: Path) -> None:
    zoo.add_model(STUB, {"training/config.json": b"{}", "training/model.bin": small})
    zoo.stall["training/model.bin"] = KEPT
    cache, variables = tmp_path / "hub", environ(SPARSEZOO_API_URL=zoo.endpoint)
    killed_midway(cache, STUB, variables, zoo, KEPT)
    completed(cache, STUB, variables)
    assert bodies(zoo) == [f"bytes={KEPT}-{SMALL_SIZE - 1}"]


@pytest.mark.parametrize("size", [SMALL_SIZE, LARGE_SIZE])
def test_ctrl_c_stops_a_pull_from_a_silent_server_within_a_second(hub: LoopHub, size: int, tmp_path: Path) -> None:
    hub.add_repo("org/m", {"model.bin": bytes(size)})
    hub.stall["model.bin"] = KEPT
    cache = tmp_path / "hub"
    process = Process(cache, "org/m", environ=environ(HF_ENDPOINT=hub.endpoint))
    until(lambda: partial_bytes(cache) >= KEPT, "the bytes before the silence")
    began = time.monotonic()
    process.interrupt()
    code, _, err = process.wait(10)
    assert time.monotonic() - began < 3
    assert (code, "goes on where it stopped" in err, "Traceback" in err) == (130, True, False), err


def test_ctrl_c_while_the_commit_is_asked_for_stops_within_a_second(hub: LoopHub, tmp_path: Path) -> None:
    hub.add_repo("org/m", {"config.json": b"{}"})
    hub.delay = 60
    process = Process(tmp_path / "hub", "org/m", environ=environ(HF_ENDPOINT=hub.endpoint))
    until(lambda: hub.requests, "the first request")
    began = time.monotonic()
    process.interrupt()
    code, _, err = process.wait(10)
    assert time.monotonic() - began < 3
    assert (code, "Traceback" in err) == (130, False), err


def test_ctrl_c_stops_a_pull_of_an_archive_within_a_second(store: ObjectStore, tmp_path: Path) -> None:
    store.put("m.tar.gz", pack({"m/weights.bin": os.urandom(SMALL_SIZE)}, ".tar.gz"))
    store.stall["m.tar.gz"] = KEPT
    cache = tmp_path / "hub"
    process = Process(cache, store.url("m.tar.gz"), environ=environ())
    until(lambda: partial_bytes(cache) >= KEPT, "the bytes before the silence")
    began = time.monotonic()
    process.interrupt()
    code, _, err = process.wait(10)
    assert time.monotonic() - began < 3
    assert (code, "Traceback" in err) == (130, False), err


def test_an_interrupted_pull_goes_on_later(hub: LoopHub, large: bytes, tmp_path: Path) -> None:
    hub.add_repo("org/m", {"large.bin": large})
    hub.stall["large.bin"] = KEPT
    cache, variables = tmp_path / "hub", environ(HF_ENDPOINT=hub.endpoint)
    process = Process(cache, "org/m", environ=variables)
    until(lambda: partial_bytes(cache) >= 2 * KEPT, "the bytes before the silence")
    process.interrupt()
    process.wait(10)
    noted = noted_bytes(cache)
    assert noted > 0
    hub.clear()
    hub.stall.clear()
    completed(cache, "org/m", variables)
    assert asked_bytes(hub, LARGE_SIZE) == LARGE_SIZE - noted
