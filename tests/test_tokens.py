"""Whatever the mirrors, redirects and settings: a token reaches origins that it was configured for, and no other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from hubcache import fetch
from hubcache.errors import HubcacheError
from tests.support.httpd import Origin, Reply, Request, ranged
from tests.support.loopserver import json_reply
from tests.support.puller import Puller, Seen

BODY = b"weights" * 500
OID = hashlib.sha1(b"blob %d\0" % len(BODY) + BODY).hexdigest()
TOKENS = {"FIRST": "hf_firstSecret", "SECOND": "hf_secondSecret", "BLANK": " "}
OWN = "hf_ownSecret"

PLACES = st.tuples(st.integers(0, 2), st.sampled_from(["127.0.0.1", "localhost"]))
Place = tuple[int, str]


@dataclass(frozen=True)
class Row:
    """One entry of mirrors.yaml."""

    place: Place
    token: str | None
    trust: str
    namespaces: str

    def text(self, name: str, url: str) -> str:
        parts = [f"name: {name}", f"url: '{url}'", "hub: huggingface", f"trust: {self.trust}"]
        parts += [f"token: {self.token}"] if self.token else []
        parts += [f"namespaces: {self.namespaces}"] if self.namespaces else []
        return f"  - {{{', '.join(parts)}}}"


ROWS = st.builds(
    Row,
    PLACES,
    st.sampled_from([None, *TOKENS, "UNSET", "HF_TOKEN"]),
    st.sampled_from(["[metadata, bytes]", "[bytes]"]),
    st.sampled_from(["", "", "", "[org]"]),
)


@dataclass(frozen=True)
class Told:
    """What the repo's metadata and the servers say."""

    is_private: bool
    status: int


@dataclass
class Maze:
    """Three servers that carry one repo, each under two names; every request may be sent on to another first."""

    servers: list[Origin] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    hops: list[Place | None] = field(default_factory=list)
    told: Told = Told(False, 302)

    def url(self, place: Place) -> str:
        return f"http://{place[1]}:{self.servers[place[0]].port}"

    def answer(self, request: Request) -> Reply:
        self.asked.append(request)
        hop = self.hops.pop(0) if self.hops else None
        if hop is not None:
            return Reply(self.told.status, {"Location": self.url(hop) + request.target}, b"moved")
        if "/revision/" in request.path:
            return json_reply({"id": "org/m", "sha": "a" * 40, "private": self.told.is_private})
        if "/tree/" in request.path:
            return json_reply([{"type": "file", "path": "w.txt", "size": len(BODY), "oid": OID}])
        return ranged(Reply(200, {}, BODY), request.headers.get("range"))


@pytest.fixture(scope="module")
def maze() -> Iterator[Maze]:
    found = Maze()
    found.servers = [Origin(found.answer) for _ in range(3)]
    for server in found.servers:
        server.start()
    yield found
    for server in found.servers:
        server.stop()


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.TransferLimits.__init__, "__defaults__", (16, 2, 4, 1))


@pytest.mark.slow
@pytest.mark.usefixtures("one_attempt")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROWS, max_size=4),
    endpoint=PLACES,
    own=st.sampled_from(["no token", "in HF_TOKEN", "in the token file", "not implicit"]),
    hops=st.lists(st.none() | PLACES, max_size=12),
    told=st.builds(Told, st.booleans(), st.sampled_from([301, 302, 303, 307, 308])),
)
def test_every_token_that_is_sent_was_configured_for_where_it_is_sent(
    maze: Maze,
    rows: list[Row],
    endpoint: Place,
    own: str,
    hops: list[Place | None],
    told: Told,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("maze")
    environ = dict(TOKENS) | ({"HF_TOKEN": OWN} if own in {"in HF_TOKEN", "not implicit"} else {})
    file = folder / "mirrors.yaml"
    file.write_text("\n".join(["mirrors:", *(row.text(f"m{n}", maze.url(row.place)) for n, row in enumerate(rows))]))
    puller = Puller.into(
        folder / "hub", maze.url(endpoint), mirrors_file=file, environ=environ,
        token=OWN if own != "no token" else None, token_is_from_environment=own in {"in HF_TOKEN", "not implicit"},
        implicit_token=own != "not implicit",
    )  # fmt: skip
    maze.asked.clear()
    maze.hops, maze.told = list(hops), told
    seen = Seen()
    with suppress(HubcacheError):
        puller("org/m", seen)

    allowed = {maze.url(row.place): set[str]() for row in rows} | {maze.url(endpoint): set()}
    for row in rows:
        if token := environ.get(row.token or "", "").strip():
            allowed[maze.url(row.place)].add(token)
    if own == "in HF_TOKEN":
        allowed[maze.url(endpoint)].add(OWN)
    assert maze.asked or any(row.namespaces for row in rows)
    for request in maze.asked:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        event("a token was sent" if token else "no token was sent")
        assert not token or token in allowed.get(f"http://{request.headers['host']}", set())
        assert not any(secret in request.target for secret in (*TOKENS.values(), OWN) if secret.strip())


@pytest.mark.slow
@pytest.mark.usefixtures("one_attempt")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, min_size=1, max_size=4), endpoint=PLACES, hops=st.lists(st.none() | PLACES, min_size=9))
def test_no_error_and_no_line_that_is_said_holds_a_token(
    maze: Maze, rows: list[Row], endpoint: Place, hops: list[Place | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("maze")
    file = folder / "mirrors.yaml"
    file.write_text("\n".join(["mirrors:", *(row.text(f"m{n}", maze.url(row.place)) for n, row in enumerate(rows))]))
    puller = Puller.into(folder / "hub", maze.url(endpoint), mirrors_file=file, environ=dict(TOKENS))
    maze.hops, maze.told = list(hops), Told(False, 302)
    seen = Seen()
    said = ""
    try:
        puller("org/m", seen)
    except HubcacheError as error:
        said = f"{error!r} {error.message} {error.hint}"
    said += " ".join(seen.lines) + repr(puller.settings) + repr(puller.app.net.settings)
    said += "".join(path.read_text() for path in folder.rglob("health.json"))
    assert not any(secret in said for secret in (*TOKENS.values(), OWN) if secret.strip())
