"""One mirror is measured as told, and who would be chosen follows from it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hubcache.app.compose import compose
from hubcache.app.settings import Settings
from hubcache.cache.store import Cache
from hubcache.core.artifact import Artifact, Entry, Manifest, RepoId, RepoPath, Revision
from hubcache.core.digests import Blob, Digest
from hubcache.core.ids import parse
from hubcache.mirrors.book import HealthBook
from hubcache.mirrors.chosen import decide
from hubcache.mirrors.config import Mirror
from hubcache.mirrors.health import Choice
from hubcache.mirrors.probe import Probe, largest, measure, reach, record, sample_of
from hubcache.net import Net, NetSettings
from hubcache.sources.huggingface import HubSource
from tests.support.loophub import LoopHub

WEIGHTS = random.Random(7).randbytes(400_000)


def hub_with() -> LoopHub:
    hub = LoopHub()
    hub.add_repo("org/name", {"config.json": b"{}", "model.safetensors": WEIGHTS})
    return hub


# -- one mirror, in this process


def measured_alone(hub: LoopHub) -> Probe:
    net = Net(NetSettings(read_timeout=1))
    probe = reach(net, Mirror("one", hub.endpoint, "huggingface"))
    return probe if probe.failure else measure(probe, source_of(hub, net), artifact_of(hub, net), None)


def source_of(hub: LoopHub, net: Net) -> HubSource:
    return HubSource(net, hub.endpoint, Cache(Path("/nowhere")), lambda _: None)


def artifact_of(hub: LoopHub, net: Net) -> Artifact:
    return source_of(hub, net).resolve(parse("org/name"))


def test_a_mirror_that_asks_for_patience_rests_as_long() -> None:
    book = HealthBook(clock=lambda: 1000.0)
    with hub_with() as hub:
        hub.rate_limit, hub.retry_after = 1, 77
        record(book, measured_alone(hub))
        assert len(hub.requests) == 1
    assert book.of(hub.endpoint).rests_until == 1077


def test_a_mirror_that_answers_503_is_reachable_and_of_no_use() -> None:
    with hub_with() as hub:
        hub.down = True
        probe = measured_alone(hub)
    assert (probe.status, probe.failure) == (503, f"{hub.endpoint} answered 503")


def test_bytes_that_end_early_are_a_failure_and_no_lie() -> None:
    with hub_with() as hub:
        hub.truncate["model.safetensors"] = 1000
        probe = measured_alone(hub)
    assert (probe.bytes_agree, "short" in probe.failure or "broke off" in probe.failure) == (None, True)


def test_a_line_that_is_too_slow_is_given_up_with_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubcache.mirrors.probe.LONGEST_SAMPLE", 0.0)
    with hub_with() as hub:
        probe = measured_alone(hub)
    assert (probe.bytes_agree, 0 < probe.size < len(WEIGHTS)) == (None, True)
    assert "so its digest is not known" in probe.remarks[0]


@pytest.mark.parametrize(
    ("sizes", "sample", "ranged"),
    [
        ((1, 4_000_000, 4_000_001), 4_000_000, 4_000_001),
        ((9_000_000, 5_000_000), 5_000_000, 9_000_000),
        ((2, 1), 2, 2),
    ],
)
def test_the_sample_is_small_and_the_range_is_of_what_is_large(
    sizes: tuple[int, ...], sample: int, ranged: int
) -> None:
    digest = Digest("sha256", "0" * 64)
    files = {RepoPath(str(size)): Entry(Blob(digest, size)) for size in sizes}
    artifact = Artifact(RepoId("hf", "model", "org/name"), Revision("main", "0" * 40), Manifest(files))
    assert (sample_of(artifact), largest(artifact)) == (str(sample), str(ranged))


# -- the choice, without any network


def mirror(name: str, *trust: str, is_shipped: bool = False) -> Mirror:
    return Mirror(name, f"http://{name}", "huggingface", trust=trust or ("metadata", "bytes"), is_shipped=is_shipped)


def names_of(mirrors: list[Mirror], order: str) -> tuple[tuple[str, str], ...]:
    """Decide among mirrors in the order of their health; a name in capitals rests."""
    choices = [Choice(f"http://{name.lower()}", name.isupper(), "why") for name in order.split()]
    return tuple((chosen.mirror.name, chosen.why) if chosen else ("", "") for chosen in decide(mirrors, choices))


@pytest.mark.parametrize(
    ("order", "metadata", "content"),
    [
        ("a b c", ("a", "why; the first in your order"), ("a", "why; the first in your order")),
        ("b a c", ("a", "why; the first in your order"), ("b", "why; more than twice as fast as a")),
        ("b c A", ("a", "why; the first in your order"), ("b", "why; a rests")),
        ("c A B", ("a", "why; the first in your order"), ("c", "why; a rests; b rests")),
        ("A B C", ("a", "why; the first in your order"), ("a", "why; the first in your order")),
    ],
)
def test_the_choice_says_what_is_against_those_before(
    order: str, metadata: tuple[str, str], content: tuple[str, str]
) -> None:
    mirrors = [mirror("a"), mirror("b", "bytes"), mirror("c", "bytes", is_shipped=True)]
    assert names_of(mirrors, order) == (metadata, content)


def test_nobody_is_chosen_for_metadata_where_nobody_is_trusted() -> None:
    assert names_of([mirror("a", "bytes")], "a") == (("", ""), ("a", "why; the first in your order"))


def test_listings_are_not_asked_of_a_first_mirror_that_is_trusted_for_bytes(tmp_path: Path) -> None:
    own = tmp_path / "mirrors.yaml"
    own.write_text("mirrors: [{name: near, url: 'https://near.example', hub: huggingface, trust: [bytes]}]")
    app = compose(Settings.from_environ({"HOME": str(tmp_path), "HUBCACHE_MIRRORS": str(own)}))
    assert app.mirrors_of("huggingface")[0].name == "near"
    assert app.endpoints()["huggingface"] == "https://huggingface.co"
