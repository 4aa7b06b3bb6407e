"""Tokens stay where they belong, waits end, answers are bounded; what the answers mean is the sources' matter."""

from __future__ import annotations

import base64
import gzip
import http.client
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hubcache.app.compose import bound_tokens
from hubcache.app.settings import HUGGINGFACE, Settings
from hubcache.core import wire
from hubcache.core.origins import Origin, redact
from hubcache.errors import (
    BadConfig,
    HubcacheError,
    IntegrityError,
    NotFound,
    RateLimited,
    SourceUnavailable,
)
from hubcache.mirrors.config import Mirror, MirrorsConfig
from hubcache.net import ATTEMPTS, LONGEST_WAIT, MAX_REDIRECTS, Net, NetSettings, _redirected, retry
from tests.support.commandline import CommandLine, Ran
from tests.support.httpd import Origin as Server
from tests.support.httpd import Reply, Request, Spoil
from tests.support.loophub import LoopHub

TOKEN = "hf_secretOfTheTests"
SIGNATURE = "sig=signedForTheTests"
WEIGHTS = bytes(range(256)) * 64
SMALL = {f"sub/{n}.txt": b"%d" % n for n in range(50)}


@dataclass
class Loop:
    """Servers on loopback whose answer the test chooses, and what they were asked."""

    servers: list[Server] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)

    def serve(self, answer: Callable[[Request], Reply]) -> Server:
        def logged(request: Request) -> Reply:
            self.asked.append(request)
            return answer(request)

        server = Server(logged)
        server.start()
        self.servers.append(server)
        return server

    def stop(self) -> None:
        for server in self.servers:
            server.stop()


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.stop()


@pytest.fixture
def hub() -> Iterator[LoopHub]:
    with LoopHub() as found:
        found.add_repo("org/model", {"config.json": b"{}", "model.safetensors": WEIGHTS})
        yield found


@pytest.fixture
def hubcache(tmp_path: Path, hub: LoopHub) -> CommandLine:
    return CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint)


@contextmanager
def connected(**options: object) -> Iterator[Net]:
    with closing(Net(NetSettings(**options))) as net:  # type: ignore[arg-type]  # the tests' own keywords
        yield net


def answered(response: object) -> HubcacheError | None:
    return None


def get(url: str, **options: object) -> bytes:
    with connected(**options) as net, net.open(url) as response:
        return response.read_metadata()


# -- tokens

SCHEMES = st.sampled_from(["http"] * 9 + ["https"])
HOPS = st.tuples(st.integers(0, 2), st.sampled_from(["127.0.0.1", "localhost"]), SCHEMES)


@dataclass
class Maze:
    """Three servers, each under two names, that send a request through a list of URLs."""

    loop: Loop
    closed: socket.socket
    plan: list[str] = field(default_factory=list)
    status: int = 302

    def answer(self, request: Request) -> Reply:
        following = int(request.path.strip("/")) + 1
        if following == len(self.plan):
            return Reply(200, {}, b"out")
        return Reply(self.status, {"Location": self.plan[following]}, b"moved")

    def url(self, hop: tuple[int, str, str], number: int) -> str:
        server, host, scheme = hop
        # Nobody speaks TLS here, and a closed port says so at once.
        port = self.loop.servers[server].port if scheme == "http" else self.closed.getsockname()[1]
        return f"{scheme}://{host}:{port}/{number}"


@pytest.fixture(scope="module")
def maze() -> Iterator[Maze]:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        found = Maze(Loop(), closed)
        for _ in range(3):
            found.loop.serve(found.answer)
        yield found
        found.loop.stop()


@settings(max_examples=100, deadline=None)
@given(hops=st.lists(HOPS, min_size=1, max_size=7), owner=HOPS, status=st.sampled_from([301, 302, 303, 307, 308]))
@example(hops=[(0, "127.0.0.1", "http"), (0, "localhost", "http")], owner=(0, "127.0.0.1", "http"), status=302)
@example(hops=[(0, "localhost", "http"), (1, "localhost", "http")], owner=(0, "localhost", "http"), status=307)
@example(
    hops=[(0, "localhost", "http"), (1, "localhost", "http"), (0, "localhost", "http")],
    owner=(0, "localhost", "http"),
    status=308,
)
@example(hops=[(0, "127.0.0.1", "http")], owner=(0, "127.0.0.1", "https"), status=302)
def test_through_any_redirects_a_token_reaches_its_own_origin_and_no_other(
    maze: Maze, hops: list[tuple[int, str, str]], owner: tuple[int, str, str], status: int
) -> None:
    maze.plan = [maze.url(hop, number) for number, hop in enumerate(hops)]
    maze.status = status
    maze.loop.asked.clear()
    server, host, scheme = owner
    home = Origin(scheme, host, maze.loop.servers[server].port)
    with connected(tokens={home: TOKEN}) as net, suppress(SourceUnavailable), net.open(maze.plan[0]):
        pass
    for request in maze.loop.asked:
        at_home = request.headers["host"] == f"{host}:{home.port}" and scheme == "http"
        assert request.headers.get("authorization") == (f"Bearer {TOKEN}" if at_home else None)
    assert len(maze.loop.asked) == next((at for at, hop in enumerate(hops) if hop[2] == "https"), len(hops))


def test_the_hubs_cdn_gets_no_token(hubcache: CommandLine, hub: LoopHub) -> None:
    # LoopHub's CDN refuses a request that carries one, as the real one does.
    assert hubcache("pull", "org/model", HF_TOKEN=TOKEN).code == 0
    sent = {(request.origin, request.headers.get("authorization")) for request in hub.requests}
    assert sent == {("hub", f"Bearer {TOKEN}"), ("cdn", None)}


def bound(environ: dict[str, str], *mirrors: Mirror) -> dict[str, str]:
    tokens = bound_tokens(Settings.from_environ({"HOME": "/nowhere"} | environ), MirrorsConfig(mirrors))
    return {str(origin): token for origin, token in tokens.items()}


def team(url: str, token: str | None = "TEAM_TOKEN") -> Mirror:
    return Mirror("team", url, "huggingface", token)


def test_the_users_token_goes_to_huggingface_co() -> None:
    assert bound({"HF_TOKEN": TOKEN}) == {HUGGINGFACE: TOKEN}


@pytest.mark.parametrize("endpoint", ["https://mirror.example.com", "http://mirror.example.com", "http://127.evil.com"])
def test_the_users_token_does_not_go_to_a_mirror_elsewhere(endpoint: str) -> None:
    assert bound({"HF_TOKEN": TOKEN, "HF_ENDPOINT": endpoint}) == {HUGGINGFACE: TOKEN}


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"])
def test_the_users_token_goes_to_an_endpoint_on_this_machine(endpoint: str) -> None:
    assert bound({"HF_TOKEN": TOKEN, "HF_ENDPOINT": endpoint}) == {HUGGINGFACE: TOKEN, endpoint: TOKEN}


def test_a_token_from_the_token_file_goes_to_huggingface_co_only(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    assert bound({"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:8080"}) == {HUGGINGFACE: TOKEN}


def test_a_mirror_gets_the_token_that_is_named_for_it() -> None:
    assert bound({"TEAM_TOKEN": "t"}, team("https://mirror.example.com/hub")) == {"https://mirror.example.com": "t"}


def test_the_users_token_goes_to_a_mirror_for_which_it_is_named() -> None:
    found = bound({"HF_TOKEN": TOKEN}, team("https://mirror.example.com", "HF_TOKEN"))
    assert found["https://mirror.example.com"] == TOKEN


def test_a_mirror_without_a_token_gets_none() -> None:
    assert bound({"TEAM_TOKEN": "t"}, team("https://mirror.example.com", None)) == {}


def test_a_mirror_at_plain_http_gets_no_token() -> None:
    assert bound({"TEAM_TOKEN": "t"}, team("http://mirror.example.com")) == {}


def test_a_mirrors_token_loses_its_line_end() -> None:
    assert bound({"TEAM_TOKEN": "t\r\n"}, team("https://mirror.example.com")) == {"https://mirror.example.com": "t"}


def test_without_the_implicit_token_only_named_ones_are_sent() -> None:
    environ = {"HF_TOKEN": TOKEN, "TEAM_TOKEN": "t", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    assert bound(environ, team("https://mirror.example.com")) == {"https://mirror.example.com": "t"}


@pytest.mark.parametrize("token", ["hf_ключ", "hf_\x7f", "hf_\u2028a", "hf_a\x00b"])
def test_a_token_that_no_header_can_carry_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(BadConfig, match="the token for https://huggingface") as caught:
        NetSettings(tokens={Origin.of(HUGGINGFACE): token})
    assert token not in caught.value.message


@pytest.mark.parametrize("option", ["gated", "private"])
def test_a_restricted_repo_opens_with_its_token(hubcache: CommandLine, hub: LoopHub, option: str) -> None:
    hub.add_repo("org/closed", {"config.json": b"{}"}, token=TOKEN, **{option: True})
    assert hubcache("pull", "org/closed", HF_TOKEN=TOKEN).code == 0


@pytest.mark.parametrize(("option", "code"), [("gated", 9), ("private", 4)])
def test_a_restricted_repo_stays_closed_without_a_token(
    hubcache: CommandLine, hub: LoopHub, option: str, code: int
) -> None:
    hub.add_repo("org/closed", {"config.json": b"{}"}, token=TOKEN, **{option: True})
    assert hubcache("pull", "org/closed").code == code


def test_a_refused_token_is_said_to_be_refused(hubcache: CommandLine, hub: LoopHub) -> None:
    hub.revoked.add(TOKEN)
    ran = hubcache("pull", "org/model", HF_TOKEN=TOKEN)
    assert (ran.code, "the token was refused" in ran.err) == (9, True)


# -- origins and redaction


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "//h/x", "http:///x", "http://h:0/", "http://h:99999/", "http://[::1", ""]
)
def test_nothing_but_http_and_https_has_an_origin(url: str) -> None:
    with pytest.raises(SourceUnavailable, match="not an http or https URL"):
        Origin.of(url)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://HOST.example/x", "https://host.example"),
        ("https://host:443/", "https://host"),
        ("http://host:8080?x", "http://host:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_an_origin_is_written_without_what_goes_without_saying(url: str, text: str) -> None:
    assert str(Origin.of(url)) == text


@pytest.mark.parametrize(
    "host", ["127.evil.com", "127.0.0.1.nip.io", "localhost.evil.com", "0.0.0.0", "[::ffff:8.8.8.8]"]
)
def test_a_host_that_only_looks_like_loopback_is_none(host: str) -> None:
    assert not Origin.of(f"http://{host}/").is_loopback


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@host/a@b?q=secret#secret", "https://host/a@b"),
        ("https://host/p?next=https://u:secret@x/", "https://host/p"),
        ("https://u:secret@host/to/https://other/y", "https://host/to/https://other/y"),
        ("//u:secret@host/p", "//host/p"),
        ("https://u:se@cret@host", "https://host"),
        ("/path?secret", "/path"),
    ],
)
def test_a_shown_url_has_no_credentials_and_no_query(url: str, shown: str) -> None:
    assert redact(url) == shown


# -- redirects


def test_a_redirect_from_https_to_http_is_refused() -> None:
    with pytest.raises(SourceUnavailable, match="from https to plain http"):
        _redirected("https://host.example/x", "http://host.example/y")


def test_a_redirect_to_nowhere_is_no_answer(loop: Loop) -> None:
    server = loop.serve(lambda _: Reply(302, {"Location": f"http://[bad?{SIGNATURE}"}))
    with pytest.raises(SourceUnavailable) as caught:
        get(server.url)
    assert SIGNATURE not in caught.value.message


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1:1/"])
def test_a_redirect_out_of_the_web_is_refused(loop: Loop, location: str) -> None:
    server = loop.serve(lambda _: Reply(302, {"Location": location}))
    with pytest.raises(SourceUnavailable, match="not an http or https URL"):
        get(server.url)


def test_a_redirect_loop_ends(loop: Loop) -> None:
    server = loop.serve(lambda request: Reply(302, {"Location": request.target}))
    with pytest.raises(SourceUnavailable, match="redirects"):
        get(f"{server.url}/round")
    assert len(loop.asked) == MAX_REDIRECTS


def test_the_body_of_a_redirect_is_not_waited_for(loop: Loop) -> None:
    def answer(request: Request) -> Reply:
        if request.path == "/there":
            return Reply(200, {}, b"content")
        return Reply(302, {"Location": "/there"}, bytes(50 << 20), spoil=Spoil(chunked=True, rate=1 << 20))

    server = loop.serve(answer)
    began = time.monotonic()
    assert get(server.url) == b"content"
    assert time.monotonic() - began < 5


# -- servers that are too slow


def drip(text: bytes, seconds: float) -> Iterator[str]:
    """Serve one answer byte by byte, each well within the time-out; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError), listener.accept()[0] as client:
                client.recv(1 << 16)
                for byte in text:
                    client.sendall(bytes([byte]))
                    time.sleep(seconds)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"


dripping = contextmanager(drip)


def test_headers_that_drip_in_are_not_waited_for_beyond_the_time_out() -> None:
    headers = b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 400 + b"\r\n\r\n"
    began = time.monotonic()
    with dripping(headers, 0.02) as url, pytest.raises(SourceUnavailable, match="timed out"):
        get(url, read_timeout=0.5)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("metadata", [True, False])
def test_a_body_below_the_minimum_speed_is_given_up_with_the_numbers(metadata: bool) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"x" * 900
    with (
        dripping(answer, 0.01) as url,
        connected(read_timeout=2, slowest=1000, slow_window=0.5) as net,
        net.open(url) as response,
        pytest.raises(SourceUnavailable, match=r"below 1000 bytes/s for 0\.5 s"),
    ):
        response.read_metadata() if metadata else [response.read(99) for _ in range(900)]


def test_a_reader_that_takes_its_time_makes_no_server_slow(loop: Loop) -> None:
    server = loop.serve(lambda _: Reply(200, {}, bytes(3000)))
    with connected(slowest=1e6, slow_window=0.05) as net, net.open(server.url) as response:
        for _ in range(3):
            assert response.read(1000)
            time.sleep(0.06)


# -- answers


def test_a_gzip_bomb_for_metadata_is_refused(loop: Loop) -> None:
    bomb = gzip.compress(bytes(65 << 20), compresslevel=1)
    server = loop.serve(lambda _: Reply(200, {"Content-Encoding": "gzip"}, bomb))
    with connected() as net, pytest.raises(IntegrityError, match="bytes of metadata"):
        net.fetch_json(server.url, check=answered)


def test_compressed_metadata_is_read(loop: Loop) -> None:
    server = loop.serve(lambda _: Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(b'{"a": 1}')))
    with connected() as net:
        assert net.fetch_json(server.url, check=answered)[0] == {"a": 1}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>"),
        Reply(200, {}, b""),
        Reply(200, {}, b"\xff\xfe{"),
        Reply(200, {}, b'{"a": '),
    ],
    ids=["captive portal", "nothing", "no text", "half"],
)
def test_metadata_that_is_no_json_is_no_answer(loop: Loop, reply: Reply) -> None:
    server = loop.serve(lambda _: reply)
    with connected() as net, pytest.raises(SourceUnavailable, match="not JSON"):
        net.fetch_json(server.url, check=answered)


def test_metadata_nested_too_deep_is_no_answer(loop: Loop) -> None:
    server = loop.serve(lambda _: Reply(200, {}, b"[" * 200_000))
    with connected() as net, pytest.raises(SourceUnavailable, match="not JSON"):
        net.fetch_json(server.url, check=answered)


def test_metadata_that_is_no_gzip_is_no_answer(loop: Loop) -> None:
    server = loop.serve(lambda _: Reply(200, {"Content-Encoding": "gzip"}, b"not gzip"))
    with pytest.raises(SourceUnavailable, match="broke off"):
        get(server.url)


def test_a_range_without_its_place_is_a_wrong_answer_that_names_the_url(loop: Loop) -> None:
    server = loop.serve(lambda _: Reply(206, {}, b"some"))
    with pytest.raises(IntegrityError, match=f"{server.url}/x: not a Content-Range"):
        get(f"{server.url}/x")


@pytest.mark.parametrize("text", ["\u00b2", "9" * 5000, "-1", "", "x", "1_0"])
def test_a_length_that_is_none_is_no_length(loop: Loop, text: str) -> None:
    server = loop.serve(lambda _: Reply(200, {"Content-Length": text, "Connection": "close"}, b"x"))
    with connected(read_timeout=1) as net, suppress(SourceUnavailable), net.open(server.url) as response:
        assert response.total is None


@pytest.mark.parametrize("text", ["bytes 5-2/9", "bytes \u00b2-3/9", f"bytes 0-{'9' * 5000}/*", "bytes 0-1", "0-1/2"])
def test_a_range_that_is_none_is_a_wrong_answer(loop: Loop, text: str) -> None:
    server = loop.serve(lambda _: Reply(206, {"Content-Range": text}, b"xx"))
    with pytest.raises(IntegrityError, match="not a Content-Range"):
        get(server.url)


@pytest.mark.parametrize("text", ["\u00b2", "9" * 5000, "soon", "-5", "1.5"])
def test_a_wait_that_is_none_is_not_waited_for(text: str) -> None:
    assert wire.retry_after({"Retry-After": text}) is None


@pytest.mark.parametrize("size", ["abc", "5", float("inf"), -5, None, True, 1.5], ids=str)
@pytest.mark.parametrize("lfs", [False, True], ids=["git", "lfs"])
def test_a_listed_size_that_is_none_is_a_wrong_answer(size: object, lfs: bool) -> None:
    row: dict[str, object] = {"type": "file", "path": "a", "oid": "0" * 40, "size": size}
    if lfs:
        row = {**row, "size": 5, "lfs": {"oid": "0" * 64, "size": size}}
    with pytest.raises(IntegrityError, match="a row that cannot be read"):
        wire.parse_tree([row])


def test_a_compressed_body_is_given_as_it_is_stored(loop: Loop) -> None:
    stored = gzip.compress(b"weights")
    server = loop.serve(lambda _: Reply(200, {"Content-Encoding": "gzip"}, stored))
    with connected() as net, net.open(server.url) as response:
        assert response.read(1 << 16) == stored


def test_a_body_cut_short_is_no_answer(loop: Loop) -> None:
    server = loop.serve(lambda _: Reply(200, {}, WEIGHTS, spoil=Spoil(truncate=100)))
    with pytest.raises(SourceUnavailable, match="broke off"):
        get(server.url)


# -- waiting


@pytest.fixture
def mute() -> Iterator[str]:
    """A server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_never_answers_is_waited_for_as_long_as_the_timeout(mute: str) -> None:
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match="timed out"):
        get(mute, read_timeout=0.3)
    assert 0.3 <= time.monotonic() - began < 3


def test_a_body_that_stalls_is_waited_for_as_long_as_the_timeout(loop: Loop) -> None:
    server = loop.serve(lambda _: Reply(200, {}, WEIGHTS, spoil=Spoil(stall=100)))
    began = time.monotonic()
    with pytest.raises(SourceUnavailable):
        get(server.url, read_timeout=0.3)
    assert time.monotonic() - began < 3


def test_a_port_that_nobody_listens_on_is_no_answer() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(SourceUnavailable, match="refused"):
            get(f"http://127.0.0.1:{taken.getsockname()[1]}")


@dataclass
class Failing:
    """Raises its errors one after the other, then returns; notes how often it was called and how long one slept."""

    errors: list[HubcacheError]
    slept: list[float] = field(default_factory=list)
    calls: int = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    def retried(self) -> str:
        return retry(self, sleep=self.slept.append)


def test_a_retry_waits_as_long_as_the_source_asks() -> None:
    failing = Failing([RateLimited("", retry_after=7), RateLimited("", retry_after=0)])
    assert (failing.retried(), failing.slept) == ("answer", [7, 0])


def test_a_retry_waits_longer_each_time() -> None:
    failing = Failing([SourceUnavailable("")] * (ATTEMPTS - 1))
    failing.retried()
    assert failing.slept == sorted(failing.slept)
    assert 0 < failing.slept[0] < failing.slept[-1] < 2


def test_retries_are_bounded() -> None:
    failing = Failing([SourceUnavailable(str(number)) for number in range(100)])
    with pytest.raises(SourceUnavailable):
        failing.retried()
    assert failing.calls == ATTEMPTS


def test_a_source_that_asks_for_too_long_a_wait_is_given_up() -> None:
    failing = Failing([RateLimited("", retry_after=LONGEST_WAIT + 1)])
    with pytest.raises(RateLimited):
        failing.retried()
    assert failing.slept == []


def test_an_answer_is_not_asked_for_again() -> None:
    failing = Failing([NotFound("")])
    with pytest.raises(NotFound):
        failing.retried()
    assert failing.calls == 1


def test_a_pull_waits_as_long_as_the_hub_asks(hubcache: CommandLine, hub: LoopHub) -> None:
    hub.rate_limit, hub.retry_after = 1, 1
    began = time.monotonic()
    assert hubcache("pull", "org/model").code == 0
    assert time.monotonic() - began >= 1


# -- proxies


@dataclass
class Forwarding:
    """An HTTP proxy without CONNECT: sends what it is asked for on to one server, whatever host was asked."""

    upstream: str

    def __call__(self, request: Request) -> Reply:
        parts = urlsplit(request.target)
        with closing(http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=10)) as connection:
            connection.request(request.method, f"{parts.path}?{parts.query}", request.body or None, request.headers)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.headers.items() if name.lower() != "content-length"}
            return Reply(answer.status, kept, answer.read())


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every name below .test mean this machine."""
    real = socket.getaddrinfo

    def resolve(host: str, *rest: object, **options: object) -> object:
        return real("127.0.0.1" if str(host).endswith(".test") else host, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_a_plain_request_goes_to_the_proxy(loop: Loop) -> None:
    proxy = loop.serve(lambda _: Reply(200, {}, b"by proxy"))
    assert get("http://models.test/x", proxies={"http": proxy.url}) == b"by proxy"
    assert loop.asked[0].target == "http://models.test/x"


def test_a_proxy_may_be_named_without_its_scheme(loop: Loop) -> None:
    proxy = loop.serve(lambda _: Reply(200, {}, b"by proxy"))
    assert get("http://models.test/x", proxies={"all": f"127.0.0.1:{proxy.port}"}) == b"by proxy"


def test_a_proxy_gets_the_login_that_its_address_holds(loop: Loop) -> None:
    proxy = loop.serve(lambda _: Reply(200))
    get("http://models.test/", proxies={"http": f"http://me:p%40ss@127.0.0.1:{proxy.port}"})
    assert loop.asked[0].headers["proxy-authorization"] == f"Basic {base64.b64encode(b'me:p@ss').decode()}"


def test_a_proxy_that_fails_is_named_without_its_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        proxy = f"http://me:hunter2@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SourceUnavailable) as caught:
            get("http://models.test/", proxies={"http": proxy})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}/", "http://localhost:{}/"])
def test_loopback_is_never_proxied(loop: Loop, url: str) -> None:
    proxy, server = loop.serve(lambda _: Reply(502)), loop.serve(lambda _: Reply(200, {}, b"direct"))
    assert get(url.format(server.port), proxies={"http": proxy.url, "all": proxy.url}) == b"direct"


@pytest.mark.parametrize("no", ["models.test", ".test", "*", "a, models.test", "*.test", "MODELS.TEST", "test"])
def test_a_host_that_no_proxy_names_is_reached_directly(loop: Loop, names: None, no: str) -> None:
    proxy, server = loop.serve(lambda _: Reply(502)), loop.serve(lambda _: Reply(200, {}, b"direct"))
    assert get(f"http://models.test:{server.port}/", proxies={"http": proxy.url, "no": no}) == b"direct"


@pytest.mark.parametrize("no", ["other.test", "odels.test", "models.test:1", "s.test", "test.models"])
def test_a_host_that_no_proxy_does_not_name_is_proxied(loop: Loop, no: str) -> None:
    proxy = loop.serve(lambda _: Reply(200, {}, b"by proxy"))
    assert get("http://models.test:8080/", proxies={"http": proxy.url, "no": no}) == b"by proxy"


def test_a_pull_goes_through_the_proxy_of_the_environment(hubcache: CommandLine, hub: LoopHub, loop: Loop) -> None:
    proxy = loop.serve(Forwarding(hub.endpoint))
    ran = hubcache("pull", "org/model", HF_ENDPOINT="http://hub.test", HTTP_PROXY=proxy.url)
    assert (ran.code, {urlsplit(request.target).netloc for request in loop.asked}) == (0, {"hub.test"})


def test_a_mirror_behind_a_proxy_gets_no_token(hubcache: CommandLine, hub: LoopHub, loop: Loop) -> None:
    proxy = loop.serve(Forwarding(hub.endpoint))
    hubcache("pull", "org/model", HF_ENDPOINT="http://hub.test", HTTP_PROXY=proxy.url, HF_TOKEN=TOKEN)
    assert loop.asked
    assert not any("authorization" in request.headers for request in loop.asked)


# -- secrets

FAILURES: dict[str, tuple[Callable[[LoopHub], object], str, int]] = {
    "a refused token": (lambda hub: hub.revoked.add(TOKEN), "org/model", 9),
    "no such repo": (lambda hub: None, "org/nothing", 4),
    "no such revision": (lambda hub: None, "org/model@none", 4),
    "a corrupt file": (lambda hub: hub.corrupt.add("model.safetensors"), "org/model", 6),
    "a redirect loop": (lambda hub: hub.redirect_loop.add("config.json"), "org/model", 5),
    "a cdn that refuses": (lambda hub: hub.fail_origin.update(cdn=[403] * 99), "org/model", 9),
    "a cdn that fails": (lambda hub: hub.fail_origin.update(cdn=[500] * 99), "org/model", 5),
    "a hub that is down": (lambda hub: hub.stop(), "org/model", 5),
    "a signed url that is refused": (lambda hub: None, "{}/no/x.tar.gz?" + SIGNATURE, 4),
    "a login in a url": (lambda hub: None, f"https://me:{TOKEN}@127.0.0.1:9/x.tar.gz", 2),
}
# Asked for again and again before they are given up.
PATIENT = {"a redirect loop", "a cdn that fails"}


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(
    "failure", [pytest.param(name, marks=pytest.mark.slow if name in PATIENT else ()) for name in FAILURES]
)
def test_a_failing_pull_shows_neither_the_token_nor_a_signature(
    hubcache: CommandLine, hub: LoopHub, failure: str, flags: list[str]
) -> None:
    spoil, text, code = FAILURES[failure]
    spoil(hub)
    other = hub.endpoint.replace("127.0.0.1", "localhost")
    ran = hubcache("pull", text.format(other), *flags, HF_TOKEN=TOKEN)
    assert ran.code == code, ran.err
    said = ran.out + ran.err
    assert [secret for secret in (TOKEN, SIGNATURE, "Signature=", "Policy=", "Traceback") if secret in said] == []


URLS = {
    "refused": "http://127.0.0.1:{closed}/x?" + SIGNATURE,
    "no host": "http://ho%20st name/x?" + SIGNATURE,
    "a label too long": f"http://{'a' * 70}.test/x?{SIGNATURE}",
    "empty labels": "http://a..test/x?" + SIGNATURE,
    "no TLS": "https://127.0.0.1:{open}/x?" + SIGNATURE,
    "cut short": "http://127.0.0.1:{open}/cut?" + SIGNATURE,
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_a_traceback_shows_neither_the_token_nor_a_signature(loop: Loop, url: str) -> None:
    server = loop.serve(lambda _: Reply(200, {}, WEIGHTS, spoil=Spoil(truncate=10)))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = url.format(closed=taken.getsockname()[1], open=server.port)
        with pytest.raises(SourceUnavailable) as caught:
            get(url, tokens={Origin.of(url): TOKEN})
    shown = "".join(traceback.format_exception(caught.value))
    assert TOKEN not in shown
    assert SIGNATURE not in shown


def test_settings_of_the_net_do_not_show_tokens_and_proxies() -> None:
    shown = repr(NetSettings(tokens={Origin.of(HUGGINGFACE): TOKEN}, proxies={"http": f"http://u:{TOKEN}@p"}))
    assert TOKEN not in shown


def test_a_token_is_written_nowhere_into_the_cache(hubcache: CommandLine, hub: LoopHub) -> None:
    hub.add_repo("org/closed", {"config.json": b"{}"}, token=TOKEN, gated=True)
    assert hubcache("pull", "org/closed", HF_TOKEN=TOKEN).code == 0
    kept = [path for path in hubcache.home.parent.rglob("*") if path.is_file() and TOKEN in path.read_text("latin-1")]
    assert kept == []


# -- manners


def test_every_request_says_who_asks(hubcache: CommandLine, hub: LoopHub) -> None:
    hubcache("pull", "org/model")
    agents = {request.headers["user-agent"] for request in hub.requests}
    assert len(agents) == 1
    assert agents.pop().startswith("hubcache/")


def test_a_token_over_plain_http_is_said_aloud(hubcache: CommandLine, hub: LoopHub) -> None:
    hub.add_repo("org/small", SMALL)
    ran: Ran = hubcache("pull", "org/small", HF_TOKEN="hf_secret")
    assert f"your token goes to {hub.endpoint} over plain http" in ran.err
    assert "hf_secret" not in ran.err


def test_fifty_small_files_share_their_connections(hubcache: CommandLine, hub: LoopHub) -> None:
    hub.add_repo("org/small", SMALL)
    ran: Ran = hubcache("pull", "org/small")
    assert ran.code == 0
    assert len(hub.requests) > 50
    assert hub.connections <= 33


def test_with_the_network_off_nobody_is_asked(hubcache: CommandLine, hub: LoopHub) -> None:
    assert hubcache("pull", "org/model", HF_HUB_OFFLINE="1").code == 5
    assert hub.connections == 0
