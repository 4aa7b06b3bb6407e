"""Several mirrors of one hub: whatever some of them do wrong, a pull ends right or with the true reason, in time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import pytest

from hubcache import fetch
from hubcache.app.usecases import PullRequest, pull
from hubcache.core.artifact import Artifact, Entry, Manifest, RepoId, RepoPath, Revision
from hubcache.core.digests import Blob, digest_bytes
from hubcache.core.ports import Content
from hubcache.core.reference import Reference
from hubcache.errors import HubcacheError, IntegrityError, NotFound, RateLimited, RepoNotFound, SourceUnavailable
from hubcache.mirrors import failover
from hubcache.mirrors.book import HealthBook
from hubcache.mirrors.config import Mirror
from hubcache.mirrors.failover import Failover, Member
from hubcache.net import Net
from tests.support.faultproxy import Fault, FaultProxy
from tests.support.httpd import Body, Reply, Request
from tests.support.loophub import LoopHub
from tests.support.loopserver import json_reply
from tests.support.puller import Puller, Seen, asked_bytes, bodies
from tests.support.wholeness import faults, unverified

KB = 1024
SIZE = 800 * KB
NAME = "model.safetensors"
FILES = {"config.json": b"{}", NAME: os.urandom(SIZE)}


class Team:
    """Mirrors that carry the same repo; the first is HF_ENDPOINT, all stand in one mirrors.yaml."""

    def __init__(self, folder: Path, stack: ExitStack, count: int) -> None:
        self.hubs = [stack.enter_context(LoopHub()) for _ in range(count)]
        for hub in self.hubs:
            hub.add_repo("org/m", FILES)
        self.folder = folder
        self.stack = stack
        self.seen = Seen()

    def puller(self, *options: str, **settings: object) -> Puller:
        """Write mirrors.yaml, with each mirror's further options, and return who pulls by it."""
        rows = []
        for number, hub in enumerate(self.hubs):
            entry = [f"name: m{number}", f"url: '{hub.endpoint}'", "hub: huggingface", *options[number : number + 1]]
            rows.append(f"  - {{{', '.join(filter(None, entry))}}}")
        file = self.folder / "mirrors.yaml"
        file.write_text("\n".join(["mirrors:", *rows]))
        settings = {"read_timeout": 0.4, "connect_timeout": 0.4} | settings
        return Puller.into(self.folder / "hub", self.hubs[0].endpoint, mirrors_file=file, **settings)

    def pull(self, *options: str, text: str = "org/m", **settings: object) -> None:
        """Pull and check every byte."""
        puller = self.puller(*options, **settings)
        assert not unverified(puller(text, self.seen).path)
        assert not faults(puller.settings.hub_cache)

    def from_mirror(self, number: int) -> int:
        return self.seen.by_origin.get(self.hubs[number].endpoint, 0)

    def said(self, text: str) -> list[str]:
        return [line for line in self.seen.lines if text in line]

    def flip_every_body(self, number: int) -> None:
        """Let a mirror's bodies pass a proxy that flips a byte of each connection."""
        hub = self.hubs[number]
        proxy = self.stack.enter_context(FaultProxy(int(hub.cdn_endpoint.rpartition(":")[2])))
        proxy.fault = Fault(corrupt_at=5 * KB)
        hub.cdn_base = proxy.url


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Callable[[int], Team]]:
    with ExitStack() as stack:
        yield lambda count: Team(tmp_path, stack, count)


@pytest.fixture
def by_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the weights go by sixteen ranges."""
    monkeypatch.setattr(fetch, "SMALL", 50 * KB)
    monkeypatch.setattr(fetch, "SMALLEST_PIECE", 50 * KB)


@pytest.fixture
def few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.TransferLimits.__init__, "__defaults__", (16, 2, 4, 2))


# -- the matrix


@dataclass(frozen=True)
class Case:
    """A way to fail: what to do to a mirror, and whether its bytes come right in the end."""

    name: str
    spoil: Callable[[LoopHub], object]
    carries: bool = False

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("stalling", lambda hub: hub.stall.update({NAME: 0})),
    Case("truncating", lambda hub: hub.truncate.update({NAME: 300 * KB}), carries=True),
    Case("corrupting", lambda hub: hub.corrupt.add(NAME)),
    Case("range-ignoring", lambda hub: setattr(hub, "ignore_ranges", True), carries=True),
    Case("429", lambda hub: vars(hub).update(rate_limit=10**6, retry_after=1)),
    Case("503", lambda hub: setattr(hub, "down", True)),
    Case("redirect loop", lambda hub: hub.redirect_loop.add(NAME)),
    Case("slow headers", lambda hub: setattr(hub, "delay", 2.0)),
    Case("dead", lambda hub: hub.stop()),
]


def outcome(team: Team, *cases: Case, seconds: float) -> str:
    """Pull from mirrors with these faults; any others are good. Hold the outcome to what must come of it."""
    for case, hub in zip(cases, team.hubs, strict=False):
        case.spoil(hub)
    began = time.monotonic()
    failure: HubcacheError | None = None
    try:
        team.pull()
    except (SourceUnavailable, IntegrityError) as error:
        failure = error
    assert time.monotonic() - began < seconds
    if failure is None:
        return ""
    origins = [origin for hub in team.hubs for origin in (hub.endpoint, hub.cdn_endpoint)]
    assert any(origin in failure.message for origin in origins)
    return type(failure).__name__


@pytest.mark.slow
@pytest.mark.usefixtures("few_attempts")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_faulty_mirror_alone_ends_in_its_true_reason(team: Callable[[int], Team], case: Case) -> None:
    reason = outcome(team(1), case, seconds=15)
    expected = {"corrupting": "IntegrityError", "redirect loop": "RedirectRefused", "429": "RateLimited"}
    assert reason == ("" if case.carries else expected.get(case.name, "SourceUnavailable"))


@pytest.mark.parametrize("ranges", [False, True], ids=["whole", "by ranges"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_faulty_mirror_is_made_good_by_another(
    team: Callable[[int], Team], case: Case, ranges: bool, request: pytest.FixtureRequest
) -> None:
    if ranges:
        request.getfixturevalue("by_ranges")
    assert outcome(team(2), case, seconds=15) == ""


@pytest.mark.slow
@pytest.mark.usefixtures("few_attempts", "by_ranges")
@pytest.mark.parametrize("pair", list(combinations(CASES, 2)), ids=lambda pair: f"{pair[0]} + {pair[1]}")
def test_two_faulty_mirrors_end_right_if_one_of_them_can(team: Callable[[int], Team], pair: tuple[Case, Case]) -> None:
    assert (outcome(team(2), *pair, seconds=20) == "") == any(case.carries for case in pair)


@pytest.mark.usefixtures("by_ranges")
@pytest.mark.parametrize("number", range(0, 36, 7))
def test_two_faulty_mirrors_are_made_good_by_a_third(team: Callable[[int], Team], number: int) -> None:
    assert outcome(team(3), *list(combinations(CASES, 2))[number], seconds=20) == ""


# -- metadata


def test_no_such_repo_is_an_answer_and_nobody_else_is_asked(team: Callable[[int], Team]) -> None:
    two = team(2)
    two.hubs[1].add_repo("org/other", FILES)
    with pytest.raises(RepoNotFound):
        two.pull(text="org/other")
    assert not two.hubs[1].requests


def test_a_mirror_that_is_trusted_with_bytes_only_is_never_asked_for_metadata(team: Callable[[int], Team]) -> None:
    two = team(2)
    two.hubs[0].down = True
    with pytest.raises(SourceUnavailable):
        two.pull("", "trust: [bytes]")
    assert not two.hubs[1].requests
    two.hubs[0].down = False
    two.pull("", "trust: [bytes]")
    assert not [request for request in two.hubs[1].requests if "/revision/" in request.path or "/tree/" in request.path]


def test_a_mirror_that_asks_for_patience_is_left_at_once_for_another(team: Callable[[int], Team]) -> None:
    two = team(2)
    two.hubs[0].rate_limit, two.hubs[0].retry_after = 10**6, 25
    began = time.monotonic()
    two.pull()
    assert time.monotonic() - began < 5
    assert len(two.hubs[0].requests) == 1


def test_metadata_that_is_wrong_in_itself_is_another_mirrors_turn(team: Callable[[int], Team]) -> None:
    two = team(2)
    wrong = [{"type": "file", "path": "../../x", "size": 2, "oid": "a" * 40}]
    two.hubs[0]._tree = lambda *_: json_reply(wrong)  # type: ignore[method-assign]
    two.pull()
    assert [request for request in two.hubs[1].requests if "/tree/" in request.path]


# -- names that are not everybody's


def test_a_namespace_is_asked_of_the_mirror_that_claims_it_and_of_no_other(team: Callable[[int], Team]) -> None:
    two = team(2)
    two.hubs[0].add_repo("secret/m", FILES)
    with pytest.raises(NotFound):
        two.pull("", "namespaces: [secret]", text="secret/m")
    assert not two.hubs[0].requests


@pytest.mark.usefixtures("few_attempts")
def test_a_mirror_with_namespaces_is_asked_for_nothing_else(team: Callable[[int], Team]) -> None:
    two = team(2)
    two.hubs[0].stall[NAME] = 0
    with pytest.raises(SourceUnavailable):
        two.pull("", "namespaces: [secret]")
    assert not two.hubs[1].requests


@pytest.mark.parametrize("token", [None, "UNSET"], ids=["no token", "a token's name without its value"])
@pytest.mark.parametrize("restricted", ["private", "gated"])
def test_a_restricted_repo_is_told_to_no_mirror_without_a_token(
    team: Callable[[int], Team], restricted: str, token: str | None
) -> None:
    two = team(2)
    two.hubs[0].add_repo("org/closed", FILES, token="t", **{restricted: True})  # type: ignore[arg-type]
    options = ["token: FIRST", "trust: [bytes]" + (f", token: {token}" if token else "")]
    two.hubs[0].truncate[NAME] = 300 * KB
    two.pull(*options, text="org/closed", environ={"FIRST": "t"})
    assert not two.hubs[1].requests


def test_a_restricted_repos_bytes_come_from_a_mirror_with_a_token_too(team: Callable[[int], Team]) -> None:
    two = team(2)
    for hub in two.hubs:
        hub.add_repo("org/closed", FILES, token="t", private=True)
    two.hubs[0].stall[NAME] = 0
    two.pull("token: T", "trust: [bytes], token: T", text="org/closed", environ={"T": "t"})
    assert two.from_mirror(1) >= SIZE


# -- wrong bytes


def test_wrong_bytes_name_their_mirror_and_the_file_comes_from_another(team: Callable[[int], Team]) -> None:
    two = team(2)
    two.flip_every_body(0)
    assert two.puller()("org/m", two.seen, include=(NAME,)).path.joinpath(NAME).read_bytes() == FILES[NAME]
    assert two.said("sent wrong bytes") == [f"{two.hubs[0].endpoint} sent wrong bytes and is asked no more in this run"]


@pytest.mark.usefixtures("by_ranges")
@pytest.mark.parametrize("guilty", [0, 1])
def test_of_mirrors_that_shared_a_file_the_guilty_one_is_dropped_and_no_other(
    team: Callable[[int], Team], guilty: int
) -> None:
    three = team(3)
    three.flip_every_body(guilty)
    for hub in three.hubs:
        hub.rate = 400 * KB
    three.pull(read_timeout=5.0)
    assert [line.split()[0] for line in three.said("sent wrong bytes")] == [three.hubs[guilty].endpoint]


@pytest.mark.usefixtures("by_ranges", "few_attempts")
def test_the_guilty_one_is_found_although_the_one_asked_alone_has_died(team: Callable[[int], Team]) -> None:
    three = team(3)
    three.flip_every_body(1)
    for hub in three.hubs:
        hub.rate = 400 * KB
    puller = three.puller(read_timeout=5.0)
    drops = []

    class Killing(Seen):
        def advance(self, size: int, origin: str, /) -> None:
            super().advance(size, origin)
            if origin == "discarded" and not drops:
                drops.append(origin)
                three.hubs[0].stop()

    three.seen = Killing()
    assert not unverified(puller("org/m", three.seen).path)
    assert [line.split()[0] for line in three.said("sent wrong bytes")] == [three.hubs[1].endpoint]


def answer_senselessly(hub: LoopHub) -> None:
    """Let a hub answer every file with a range that is none."""
    original = hub.file_reply

    def senseless(request: Request, name: str, body: Body, headers: dict[str, str]) -> Reply:
        reply = original(request, name, body, headers)
        reply.headers["Content-Range"] = "bytes one-two/three"
        reply.status = 206
        return reply

    hub.file_reply = senseless  # type: ignore[method-assign]


def test_a_range_that_makes_no_sense_drops_its_mirror(team: Callable[[int], Team]) -> None:
    two = team(2)
    answer_senselessly(two.hubs[0])
    two.pull()
    assert two.said("sent wrong bytes")


@pytest.mark.timeout(20)
@pytest.mark.usefixtures("few_attempts")
def test_a_resumed_file_whose_only_mirror_answers_nonsense_ends_in_that_reason(team: Callable[[int], Team]) -> None:
    one = team(1)
    one.hubs[0].truncate[NAME] = 300 * KB
    interrupt_after_first_bytes(one)
    assert one.seen.received > len(FILES["config.json"])
    answer_senselessly(one.hubs[0])
    one.seen = Seen()
    with pytest.raises(IntegrityError, match="Content-Range"):
        one.pull()


def interrupt_after_first_bytes(one: Team) -> None:
    """Leave a partial file: the mirror dies as soon as it has sent some of it."""

    class Killing(Seen):
        def advance(self, size: int, origin: str, /) -> None:
            super().advance(size, origin)
            if size > len(FILES["config.json"]):
                one.hubs[0].down = True

    one.seen = Killing()
    with pytest.raises(SourceUnavailable):
        one.pull()
    one.hubs[0].down = False


# -- sharing


@pytest.mark.usefixtures("by_ranges")
def test_a_mirror_killed_halfway_leaves_the_other_only_what_is_missing(team: Callable[[int], Team]) -> None:
    two = team(2)
    for hub in two.hubs:
        hub.rate = 400 * KB
    puller = two.puller(read_timeout=5.0)
    killed = []

    class Killing(Seen):
        def advance(self, size: int, origin: str, /) -> None:
            super().advance(size, origin)
            if self.received > SIZE // 2 and not killed:
                killed.append(origin)
                two.hubs[0].stop()

    two.seen = Killing()
    assert not unverified(puller("org/m", two.seen).path)
    assert killed
    assert two.from_mirror(0) > 0
    asked = asked_bytes(two.hubs[1], SIZE, containing="xet-bridge")
    assert asked <= SIZE + 2 - two.from_mirror(0)


@pytest.mark.usefixtures("by_ranges")
def test_two_mirrors_with_limits_share_a_file_and_keep_them(team: Callable[[int], Team]) -> None:
    two = team(2)
    for hub in two.hubs:
        hub.rate = 800 * KB
    two.pull("connections: 2", "connections: 1", read_timeout=5.0)
    assert [len(bodies(hub, containing="xet-bridge")) > 1 for hub in two.hubs] == [True, True]
    assert (two.hubs[0]._origins["cdn"].connections, two.hubs[1]._origins["cdn"].connections) == (2, 1)


@pytest.mark.usefixtures("by_ranges")
def test_a_mirrors_rate_holds_over_all_its_connections(team: Callable[[int], Team]) -> None:
    one = team(1)
    began = time.monotonic()
    one.pull("rate: 1")
    assert 0.5 < time.monotonic() - began < 4


def test_a_body_below_the_minimum_speed_goes_on_at_another_mirror(team: Callable[[int], Team]) -> None:
    two = team(2)
    two.hubs[0].rate = 20 * KB
    app = two.puller("", "trust: [bytes]").app
    slow = replace(app, net=Net(replace(app.net.settings, slowest=200e3, slow_window=0.5)))
    began = time.monotonic()
    pull(slow, PullRequest("org/m", include=(NAME,)), progress=two.seen, notify=two.seen.notify)
    assert time.monotonic() - began < 6


def test_a_file_at_a_dead_node_is_asked_of_the_hub_again(team: Callable[[int], Team]) -> None:
    one = team(1)
    hub = one.hubs[0]
    with FaultProxy(int(hub.cdn_endpoint.rpartition(":")[2])) as proxy:
        hub.cdn_base = proxy.url
        proxy.inject(Fault(reset_after=200 * KB))
        proxy.fault = Fault(refuse=True)

        class Moving(Seen):
            def advance(self, size: int, origin: str, /) -> None:
                super().advance(size, origin)
                if size > len(FILES["config.json"]):
                    hub.cdn_base = None

        one.seen = Moving()
        one.pull()
    assert asked_bytes(hub, SIZE, containing="xet-bridge") < 2 * SIZE


# -- with sources that only count


@dataclass
class Counting:
    """A source that counts what it is asked, and fails as it is told."""

    error: HubcacheError | None = None
    asked: int = 0
    body: bytes = b"bytes"
    closed: list[bool] = field(default_factory=list)

    def resolve(self, reference: Reference, /) -> Artifact:
        self._ask()
        return ARTIFACT

    def open(self, artifact: Artifact, path: RepoPath, start: int = 0, end: int | None = None) -> Content:
        self._ask()
        return Bytes(self.body[start:end])

    def close(self) -> None:
        self.closed.append(True)

    def _ask(self) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error


class Bytes:
    file: Path | None = None

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.start, self.end, self.total, self.origin = 0, len(body), len(body), "a test"

    def read(self, limit: int, /) -> bytes:
        chunk, self._body = self._body[:limit], self._body[limit:]
        return chunk

    def close(self) -> None:
        pass

    __enter__ = lambda self: self  # noqa: E731
    __exit__ = lambda self, *_: None  # noqa: E731


PATH = RepoPath("w.bin")
ARTIFACT = Artifact(
    RepoId("hf", "model", "org/m"),
    Revision("main", "a" * 40),
    Manifest({PATH: Entry(Blob(digest_bytes("sha256", b"bytes"), 5))}),
    origin="http://m0",
    is_public=True,
)


def wired(*sources: Counting, book: HealthBook | None = None, **options: object) -> Failover:
    """Wire sources as mirrors m0, m1…; the options are the last one's."""
    mirrors = [Mirror(f"m{number}", f"http://m{number}", "huggingface") for number in range(len(sources))]
    mirrors[-1] = replace(mirrors[-1], **options)  # type: ignore[arg-type]
    members = [Member(mirror, source) for mirror, source in zip(mirrors, sources, strict=True)]
    return Failover(members, book or HealthBook(), notify=lambda _: None)


def test_a_shipped_stand_in_is_not_asked_while_a_chosen_mirror_is_only_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "LONGEST_TURN", 0.0)
    chosen, stand_in = Counting(), Counting()
    source = wired(chosen, stand_in, trust=("bytes",), is_shipped=True)
    contents = [source.open(ARTIFACT, PATH) for _ in range(40)]
    assert (len(contents), stand_in.asked) == (40, 0)


def test_a_shipped_stand_in_is_asked_when_the_chosen_mirror_fails() -> None:
    chosen, stand_in = Counting(SourceUnavailable("down")), Counting()
    source = wired(chosen, stand_in, trust=("bytes",), is_shipped=True)
    with source.open(ARTIFACT, PATH) as content:
        assert content.read(9) == b"bytes"
    source.open(ARTIFACT, PATH)
    assert (chosen.asked, stand_in.asked) == (1, 2)


def test_a_mirror_that_asked_for_patience_is_not_asked_again_while_another_only_fails() -> None:
    limited, failing = Counting(RateLimited("429", retry_after=30)), Counting(SourceUnavailable("down"))
    source = wired(limited, failing)
    for _ in range(3):
        with pytest.raises(SourceUnavailable):
            source.open(ARTIFACT, PATH)
    assert (limited.asked, failing.asked) == (1, 3)


def test_mirrors_that_all_ask_for_patience_are_waited_for_as_long_as_the_shortest_asks() -> None:
    source = wired(Counting(RateLimited("429", retry_after=30)), Counting(RateLimited("429", retry_after=7)))
    with pytest.raises(RateLimited) as caught:
        source.open(ARTIFACT, PATH)
    assert caught.value.retry_after == 7


def test_every_mirrors_reason_is_told() -> None:
    source = wired(Counting(SourceUnavailable("m0 is down")), Counting(SourceUnavailable("m1 stalls")))
    with pytest.raises(SourceUnavailable, match="m0 is down; m1 stalls"):
        source.open(ARTIFACT, PATH)


def test_health_decides_in_the_next_run_whom_to_ask_first(tmp_path: Path) -> None:
    first = wired(Counting(SourceUnavailable("down")), Counting(), book=HealthBook(tmp_path / "health.json"))
    first.open(ARTIFACT, PATH).close()
    first.close()
    failed, good = Counting(), Counting()
    wired(failed, good, book=HealthBook(tmp_path / "health.json")).resolve(Reference("hf", "org/m", ARTIFACT.repo))
    assert (failed.asked, good.asked) == (0, 1)


def test_when_all_who_may_be_asked_have_sent_wrong_bytes_that_is_the_reason() -> None:
    source = wired(Counting(), Counting(), namespaces=("other",))
    assert source.drop(["http://m0"])
    with pytest.raises(IntegrityError, match="http://m0 sent wrong bytes"):
        source.open(ARTIFACT, PATH)
