"""Hostile requests: nothing outside a repo is served, nothing is written, nobody else is held up, nobody is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from email import message_from_bytes
from email.policy import HTTP
from pathlib import Path
from time import monotonic
from urllib.parse import quote, urlencode

import pytest

from tests.support.faultproxy import FaultProxy
from tests.support.mirrorcase import BIG, SECRET, TREE, Case, listing, mirror_case
from tests.support.rawhttp import Answer, Line, ask, parse, request, send
from tests.support.serving import Served
from tests.support.waiting import until

MODES = ("offline", "pull-through")
FILE = "/user/repo/resolve/main/model.safetensors"
SMALL = "/user/repo/resolve/main/config.json"
PATHS_INFO = "/api/models/user/repo/paths-info/main"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    with mirror_case(tmp_path_factory.mktemp("hostile")) as made:
        yield made
        assert all(server.is_running() and "Traceback" not in server.log for server in made.servers.values())


@pytest.fixture
def port(case: Case) -> int:
    return case.servers["offline"].port


# -- paths, names and revisions

CLIMBS = [
    "../../../../outside/secret.txt",
    "..%2f..%2f..%2f..%2foutside%2fsecret.txt",
    "%2e%2e/%2e%2e/%2e%2e/%2e%2e/outside/secret.txt",
    "%252e%252e%252f%252e%252e%252foutside%252fsecret.txt",
    "..%5c..%5c..%5coutside%5csecret.txt",
    "..\\..\\..\\outside\\secret.txt",
    "sub/../../../../outside/secret.txt",
    "./config.json",
    "config.json%00.txt",
    "config.json%2500",
    "%00",
    "//etc/passwd",
    "%2Fetc%2Fpasswd",
    "C:%5cWindows%5cwin.ini",
    "C:/Windows/win.ini",
    "file:///etc/passwd",
    ".git/config",
    "sub/.GIT/config",
    "%ff%fe",
    "%c0%ae%c0%ae/%c0%ae%c0%ae/secret.txt",
    "config.json/",
    "config.json/.",
    "config.json::$DATA",
    "CON",
    "x" * 300,
    "x/" * 3000 + "x",
    "%C3%A9" * 200,
    "%0d%0aSet-Cookie:%20a=b",
    "config.json%7f",
    "config.json%20",
    "link.txt",
    "folder/secret.txt",
    "named.txt",
]
REPOS = ["user/repo", "user/partial"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("repo", REPOS)
@pytest.mark.parametrize("path", CLIMBS, ids=lambda path: path[:40])
def test_a_path_that_leads_elsewhere_is_refused(case: Case, mode: str, repo: str, path: str) -> None:
    got = ask(case.servers[mode].port, "GET", f"/{repo}/resolve/main/{path}")

    # A slash at the end, or two in a row, is no other path.
    served = {(200, TREE["config.json"]), (200, b"{}")} if path == "config.json/" else set()
    assert got.status in {400, 404} or (got.status, got.body) in served


@pytest.mark.parametrize("mode", MODES)
def test_nothing_from_beside_the_cache_is_ever_served(case: Case, mode: str) -> None:
    port = case.servers[mode].port
    targets = [f"/{repo}/{verb}/main/{path}" for repo in REPOS for verb in ("resolve", "raw") for path in CLIMBS]
    targets += [
        f"/api/models/user/partial/{rest}" for rest in ("tree/main?recursive=1", "tree/main/folder", "?blobs=1")
    ]

    answers = [ask(port, "GET", target) for target in targets]

    assert [target for target, got in zip(targets, answers, strict=True) if SECRET in got.body] == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["link.txt", "folder/secret.txt", "named.txt"])
def test_a_link_out_of_the_cache_is_listed_nowhere(case: Case, mode: str, name: str) -> None:
    body = json.dumps({"paths": [name]}).encode()
    got = ask(case.servers["offline"].port, "POST", "/api/models/user/partial/paths-info/main", JSON, body)

    assert (got.status, json.loads(got.body)) == (200, [])


def test_a_listed_file_whose_link_leads_to_other_bytes_is_not_served(case: Case, port: int) -> None:
    link = next(case.servers["offline"].cache.glob("models--solo/snapshots/*/config.json"))
    case.outside.joinpath("other").write_bytes(b"[]")
    link.resolve().unlink()
    link.unlink()
    link.symlink_to(case.outside / "other")

    got = ask(port, "GET", "/solo/resolve/main/config.json")

    assert (got.status, b"[]" in got.body) == (502, False)


NAMES = [
    "..", ".", "../..", "%2e%2e/x", "user/..", "user/repo..", "user/re--po", "user/.repo", "user/repo.",
    "user/repo.git", "models--user--repo", "user/%00", "user/r%C3%A9po", "user/repo%20", "user/" + "a" * 97,
    "-user/repo", "user/repo%0a", "user\\repo", "api/models", "healthz/x",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["/api/models/{}", "/{}/resolve/main/config.json", "/api/models/{}/tree/main"])
def test_a_name_that_is_none_is_refused(case: Case, name: str, target: str) -> None:
    statuses = {mode: ask(case.servers[mode].port, "GET", target.format(name)).status for mode in MODES}

    assert set(statuses.values()) <= {400, 404}


REVISIONS = [
    "..", "%2e%2e", "..%2f..%2f..%2foutside", "refs%2f..%2f..%2f..%2foutside%2fsecret.txt", "%00", "main%00",
    "main.lock",
    "-x", "ma..in", "ma~in", "ma%5ein", "ma:in", "ma%5cin", "x" * 241, "%C3%A9" * 200, "main%0a", "@%7b1%7d",
    "refs/pr/..", "%2Fetc%2Fpasswd", "*", "C0" * 20,
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("revision", REVISIONS, ids=lambda revision: revision[:30])
def test_a_revision_that_is_none_is_refused(case: Case, mode: str, revision: str) -> None:
    targets = [
        "/api/models/user/repo/revision/{}",
        "/api/models/user/repo/tree/{}",
        "/user/repo/resolve/{}/config.json",
    ]
    statuses = {ask(case.servers[mode].port, "GET", target.format(revision)).status for target in targets}

    assert statuses <= {400, 404}


@pytest.mark.parametrize("mode", MODES)
def test_hostile_requests_leave_the_cache_as_it_was(case: Case, mode: str) -> None:
    server = case.servers[mode]
    ask(server.port, "GET", SMALL)
    before, beside = listing(server.cache), listing(case.outside.parent)

    for path in CLIMBS:
        ask(server.port, "GET", f"/user/repo/resolve/main/{path}")
    for name in NAMES:
        ask(server.port, "GET", f"/api/models/{name}/tree/main")
    for revision in REVISIONS:
        ask(server.port, "GET", f"/user/repo/resolve/{revision}/config.json")

    assert (listing(server.cache), listing(case.outside.parent)) == (before, beside)


# -- ranges


def ranged(port: int, asked: str, target: str = FILE, **headers: str) -> Answer:
    return ask(port, "GET", target, {"Range": asked, **headers})


def parts_of(got: Answer) -> list[tuple[str, bytes]]:
    head = f"Content-Type: {got.get('Content-Type')}\r\n\r\n".encode()
    parts = message_from_bytes(head + got.body, policy=HTTP).iter_parts()
    return [(part["Content-Range"], part.get_payload(decode=True)) for part in parts]


@pytest.mark.parametrize("mode", MODES)
def test_several_ranges_come_as_parts_with_the_files_bytes(case: Case, mode: str) -> None:
    got = ranged(case.servers[mode].port, "bytes=5-9, 0-0 ,\t1000-200999, -3000")
    size = len(BIG)

    assert (got.status, parts_of(got)) == (206, [
        (f"bytes 5-9/{size}", BIG[5:10]), (f"bytes 0-0/{size}", BIG[:1]),
        (f"bytes 1000-200999/{size}", BIG[1000:201000]), (f"bytes {size - 3000}-{size - 1}/{size}", BIG[-3000:]),
    ])  # fmt: skip


def test_sixteen_ranges_are_the_most(port: int) -> None:
    spans = [f"{at}-{at + 9}" for at in range(0, 340, 20)]
    sixteen, more = ranged(port, "bytes=" + ",".join(spans[:16])), ranged(port, "bytes=" + ",".join(spans))

    assert ([body for _, body in parts_of(sixteen)], more.status, more.get("Content-Range")) == (
        [BIG[at : at + 10] for at in range(0, 320, 20)], 416, f"bytes */{len(BIG)}",
    )  # fmt: skip


@pytest.mark.parametrize("asked", ["bytes=0-9,5-14", "bytes=0-,0-", "bytes=-5,-6", f"bytes={len(BIG)}-", "bytes=-0"])
def test_overlaps_and_what_lies_beyond_the_end_are_refused_with_the_size(port: int, asked: str) -> None:
    got = ranged(port, asked)

    assert (got.status, got.get("Content-Range"), bool(got.get("X-Error-Message"))) == (
        416,
        f"bytes */{len(BIG)}",
        True,
    )


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=-7", len(BIG) - 7, len(BIG)), (f"bytes=-{len(BIG) + 9}", 0, len(BIG)), ("BYTES=0-0", 0, 1),
     ("bytes=7-99999999999", 7, len(BIG)), ("bytes=0-0," + "," * 9, 0, 1), (f"bytes=3-{'9' * 4000}", 3, len(BIG))],
)  # fmt: skip
def test_one_range_is_cut_to_the_file(port: int, asked: str, start: int, end: int) -> None:
    got = ranged(port, asked)

    assert (got.status, got.get("Content-Range"), got.body) == (
        206,
        f"bytes {start}-{end - 1}/{len(BIG)}",
        BIG[start:end],
    )


@pytest.mark.parametrize(
    "asked", ["bytes=5-1", "bytes=a-b", "bytes", "lines=0-1", "bytes=0-1;2-3", "bytes=--1", "=0-1"]
)
def test_a_range_that_is_none_is_ignored(port: int, asked: str) -> None:
    got = ranged(port, asked)

    assert (got.status, got.body) == (200, BIG)


@pytest.mark.parametrize("asked", ["bytes=0-0", "bytes=0-", "bytes=-1", "bytes=5-9,11-12"])
def test_a_range_of_an_empty_file_is_all_of_it(port: int, asked: str) -> None:
    got = ranged(port, asked, "/user/repo/resolve/main/empty.txt")

    assert (got.status, got.get("Content-Range"), got.get("Content-Length")) == (200, "bytes */0", "0")


@pytest.mark.parametrize("asked", ["bytes=" + "0-0," * 5000, "bytes=" + "9" * 20_000 + "-"])
def test_a_header_of_20_kB_is_refused_by_its_length(port: int, asked: str) -> None:
    assert ranged(port, asked).status == 400


def test_a_range_is_for_get_alone(port: int) -> None:
    got = ask(port, "HEAD", FILE, {"Range": "bytes=999999999-"})

    assert (got.status, got.get("Content-Length"), got.body) == (200, str(len(BIG)), b"")


def etag(port: int) -> str:
    return ask(port, "HEAD", FILE).get("ETag") or ""


def test_if_range_holds_for_the_same_file_alone(port: int) -> None:
    same, weak = etag(port), f"W/{etag(port)}"
    told = [ranged(port, "bytes=0-0", **{"If-Range": tag}).status for tag in (same, weak, '"0"', "Thu, 01 Jan 1970")]

    assert told == [206, 200, 200, 200]


@pytest.mark.parametrize("lead", ["", '"a", ', 'W/"b",\t', '"a",' * 2000])
def test_if_none_match_finds_its_tag_in_a_list(port: int, lead: str) -> None:
    got = ask(port, "GET", FILE, {"If-None-Match": f"{lead}{etag(port)}"})

    assert (got.status, got.body) == (304, b"")


@pytest.mark.parametrize("tags", ['"a"', "x", '"', '"a, "b', ", ,"])
def test_if_none_match_without_the_tag_sends_the_file(port: int, tags: str) -> None:
    assert ask(port, "GET", FILE, {"If-None-Match": tags}).status == 200


# -- hosts and origins


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8090", "localhost.", "127.0.0.1:1", "[::1]:8090", "[::1]", "10.0.0.7", "a.localhost"],
)
def test_a_name_of_this_machine_is_answered(port: int, host: str) -> None:
    assert ask(port, "GET", "/healthz", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "user@localhost", "localhost/", "[::1",
     "localhost:x", "", "local host", "mirror.example", "localhost, evil.example", "%6cocalhost",
     "evil.example#localhost"],
)  # fmt: skip
@pytest.mark.parametrize("target", ["/healthz", SMALL, "/"])
def test_another_name_is_not(port: int, host: str, target: str) -> None:
    assert ask(port, "GET", target, host=host).status in {400, 421}


@pytest.mark.parametrize("host", ["mirror.example", "MIRROR.EXAMPLE:80", "mirror.example."])
def test_a_name_that_the_operator_gave_is_answered(case: Case, host: str) -> None:
    assert ask(case.servers["pull-through"].port, "GET", "/healthz", host=host).status == 200


@pytest.mark.parametrize(
    "hosts", [b"", b"Host: localhost\r\nHost: evil.example\r\n", b"Host: evil\r\nHost: localhost\r\n"]
)
def test_no_host_and_two_hosts_are_refused(port: int, hosts: bytes) -> None:
    got = parse(send(port, b"GET /healthz HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n"))

    assert got.status in {400, 421}


def test_a_target_that_names_another_host_is_refused(port: int) -> None:
    assert ask(port, "GET", f"http://evil.example{SMALL}").status == 421


def test_a_link_leads_to_the_host_that_was_checked(port: int) -> None:
    got = ask(port, "GET", "http://localhost:1/api/models/user/repo/tree/main?limit=1", host="127.0.0.1:8090")

    assert (got.get("Link") or "").startswith("<http://127.0.0.1:8090/api/models/user/repo/tree/main?limit=1&cursor=")


FAR = "https://far.example"
NEAR = ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:8080", "https://app.example"]


def allowed(port: int, target: str, origin: str, method: str = "GET") -> str | None:
    return ask(port, method, target, {"Origin": origin}).get("Access-Control-Allow-Origin")


@pytest.mark.parametrize("origin", [FAR, "null", "http://localhost.far.example", "http://127.0.0.1.nip.io", "x", ""])
@pytest.mark.parametrize(
    "target",
    ["/api/models", "/api/datasets?limit=1", "/api/models/home/made", "/home/made/resolve/main/config.json", "/healthz",
     "/api/models/home/made/refs", "/api/models/user/private", "/api/models/user/gated",
     "/home/made/resolve/main/no.txt", "/user/gated/resolve/main/config.json", "/api/whoami-v2",
     "/api/models/user/nope", "/"],
)  # fmt: skip
def test_a_far_page_reads_no_list_and_nothing_that_is_not_public(port: int, origin: str, target: str) -> None:
    assert allowed(port, target, origin) is None


@pytest.mark.parametrize("target", [SMALL, FILE, "/api/models/user/repo", "/api/models/user/repo/tree/main"])
def test_a_far_page_reads_what_the_hub_shows_everybody(port: int, target: str) -> None:
    assert allowed(port, target, FAR) == "*"


@pytest.mark.parametrize("origin", NEAR)
@pytest.mark.parametrize("target", ["/api/models", "/home/made/resolve/main/config.json", SMALL, "/nope"])
def test_a_near_page_reads_all_that_is_served(port: int, origin: str, target: str) -> None:
    assert allowed(port, target, origin) == origin


def test_a_page_that_rebinds_its_name_is_refused(port: int) -> None:
    got = ask(port, "GET", "/api/models", {"Origin": "http://evil.example:8090"}, host="evil.example:8090")

    assert (got.status, got.get("Access-Control-Allow-Origin")) == (421, None)


def test_a_preflight_of_a_far_page_opens_no_private_network(port: int) -> None:
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Private-Network": "true"}
    far = ask(port, "OPTIONS", SMALL, {"Origin": FAR, **asked})
    near = ask(port, "OPTIONS", SMALL, {"Origin": NEAR[0], **asked})

    assert (far.status, far.get("Access-Control-Allow-Private-Network")) == (204, None)
    assert near.get("Access-Control-Allow-Private-Network") == "true"


def test_a_preflight_tells_nothing_of_what_there_is(port: int) -> None:
    heads = [
        ask(port, "OPTIONS", target, {"Origin": FAR}).head for target in (SMALL, "/user/nope/resolve/main/x", "/..")
    ]

    assert len({re.sub("date: .*", "", head) for head in heads}) == 1


# -- HTTP as it should not be

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = f"POST {PATHS_INFO} HTTP/1.1\r\nHost: localhost\r\n".encode()
INNER = b"GET /user/repo/resolve/main/config.json HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + INNER,
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + INNER,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + INNER,
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + INNER,
        POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + INNER,
        POST + b"Transfer-Encoding: chunked\r\n\r\n0x10\r\n" + INNER,
        POST + b"Content-Length: -5\r\n\r\n" + INNER,
        POST + b"Content-Length: +5\r\n\r\n" + INNER,
        POST + b"Content-Length: 5_0\r\n\r\n" + INNER,
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n" + INNER,
        HEAD + b" folded: x\r\n\r\n" + INNER,
        HEAD + b"X: a\rb\r\n\r\n" + INNER,
        HEAD + b"X: a\x00b\r\n\r\n" + INNER,
        HEAD + b": x\r\n\r\n" + INNER,
    ],
)  # fmt: skip
def test_a_request_that_can_be_read_in_two_ways_is_refused_and_ends_the_connection(port: int, sent: bytes) -> None:
    received = send(port, sent)

    assert (parse(received).status, received.count(b"HTTP/1.")) == (400, 1)


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600), b"\x00" * 5000, b"SSH-2.0-x\r\n",
     b"\r\n" * 3000 + b"\x00",      b"GET\r\n\r\n", b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
     b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
     bytes(range(256)) * 20],
)  # fmt: skip
def test_garbage_is_refused(port: int, sent: bytes) -> None:
    received = send(port, sent)

    assert received == b"" or parse(received).status in {400, 421, 505}


@pytest.mark.parametrize(
    "sent",
    [b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
     HEAD + b"".join(b"X%d: y\r\n" % at for at in range(5000)) + b"\r\n", b"X" * 1_000_000],
)  # fmt: skip
def test_endless_lines_and_headers_are_refused(port: int, sent: bytes) -> None:
    received = send(port, sent)

    assert received == b"" or parse(received).status in {400, 431}


def test_bytes_that_are_no_http_do_not_fill_the_log(case: Case, port: int) -> None:
    before = case.servers["offline"].log
    send(port, b"\x00garbage\r\n\r\n")

    assert case.servers["offline"].log == before


def test_pipelined_requests_are_answered_in_their_order(port: int) -> None:
    asked = ["/healthz", "/nope", "/user/repo/raw/main/config.json", "/../x"]
    received = send(port, b"".join(request("GET", target, {"Connection": "keep-alive"}) for target in asked)
                    + request("GET", "/api/agent-harnesses"))  # fmt: skip

    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"200", b"404", b"200", b"400", b"200"]


def test_a_body_on_get_is_read_as_a_body(port: int) -> None:
    received = send(port, request("GET", "/healthz", {"Connection": "keep-alive"}, INNER) + request("GET", "/nope"))

    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"200", b"404"]


def test_http_1_0_is_answered_and_its_connection_ended(port: int) -> None:
    received = send(port, f"GET {SMALL} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())

    assert (parse(received).status, parse(received).body) == (200, TREE["config.json"])


def test_connect_and_other_protocols_are_refused(port: int) -> None:
    tunnel = send(port, b"CONNECT far.example:443 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    upgrade = ask(port, "GET", "/healthz", {"Upgrade": "websocket", "Connection": "upgrade, close"})

    assert (parse(tunnel).status, upgrade.status) == (400, 200)


@pytest.mark.parametrize("mode", MODES)
def test_who_sends_a_byte_and_stops_holds_up_nobody(case: Case, mode: str) -> None:
    port = case.servers[mode].port
    starts = [b"", b"G", HEAD, POST + b"Content-Length: 10\r\n\r\npat", request("GET", FILE)]
    with ExitStack() as lines:
        for at in range(500):
            lines.enter_context(Line(port)).send(starts[at % len(starts)])
        began = monotonic()
        got = ask(port, "GET", SMALL)

        assert (got.status, monotonic() - began < 8) == (200, True)


def test_a_connection_is_of_use_again_after_a_refusal(port: int) -> None:
    with Line(port) as line:
        told = []
        for target in ("/nope", "/../..", FILE, "/user/repo/resolve/main/no.txt", SMALL):
            line.send(request("GET", target, {"Connection": "keep-alive"}))
            told.append(line.answer().status)

    assert told == [404, 400, 200, 404, 200]


# -- paths-info


def test_a_body_over_the_limit_is_413_with_a_reason(port: int) -> None:
    got = ask(port, "POST", PATHS_INFO, FORM, b"paths=" + b"a" * (1 << 21))

    assert (got.status, got.get("X-Error-Message")) == (413, json.loads(got.body)["error"])


def test_a_chunked_body_over_the_limit_is_413(port: int) -> None:
    piece = b"10000\r\n" + b"a" * 65536 + b"\r\n"
    got = parse(
        send(port, POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + piece * 32 + b"0\r\n\r\n")
    )

    assert got.status == 413


@pytest.mark.parametrize(
    ("kind", "body"),
    [(JSON, b""), (JSON, b"[" * 100_000), (JSON, b'{"paths":' + b"9" * 9999 + b"}"), (JSON, b'{"paths":[1]}'),
     (JSON, b"\xff"), (JSON, b"{}"), (JSON, b"null"), (FORM, b""), (FORM, b"\xff\xfe"), (FORM, b"expand=true"),
     ({}, b"\x00"), (FORM, urlencode([("paths", "a")] * 10_001).encode()), (FORM, b"&" * 30_000),
     (JSON | {"Content-Encoding": "gzip"}, b"x")],
)  # fmt: skip
def test_nonsense_is_400_with_a_reason(port: int, kind: dict[str, str], body: bytes) -> None:
    got = ask(port, "POST", PATHS_INFO, kind, body or b" ")

    assert (got.status, bool(got.get("X-Error-Message"))) == (400, True)


@pytest.mark.parametrize(
    "path", ["../../../outside/secret.txt", "/etc/passwd", "\x00", "C:\\x", ".git/config", "a" * 9999]
)
def test_a_hostile_path_of_paths_info_is_no_path_of_the_repo(port: int, path: str) -> None:
    got = ask(port, "POST", PATHS_INFO, JSON, json.dumps({"paths": [path, "config.json"]}).encode())

    assert [row["path"] for row in json.loads(got.body)] == ["config.json"]


@pytest.mark.slow
def test_a_body_that_does_not_come_is_not_waited_for(port: int) -> None:
    with Line(port, 60) as line:
        line.send(POST + b"Content-Length: 100\r\n\r\npaths=")
        assert line.answer().status == 408


@pytest.mark.slow
def test_ever_new_queries_do_not_fill_the_memory(case: Case) -> None:
    server = case.servers["offline"]
    before = resident(server.pid)
    with Line(server.port) as line:
        for at in range(8000):
            line.send(request("GET", f"/api/models/user/repo?expand=sha&x={at:0>12000}", {"Connection": "keep-alive"}))
            line.answer()

    assert resident(server.pid) - before < 64 << 20


def resident(pid: int) -> int:
    """Return a process's memory in bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


# -- whom the server asks

ASKED = re.compile(
    r"/api/(models|datasets|spaces)/[\w./-]+?(/revision/[^/?]+|/tree/[0-9a-f]{40}\?[\w=&%.-]*|/refs)?"
    r"|/(datasets/|spaces/)?[\w./-]+/resolve/[0-9a-f]{40}/[^?]*|/api/resolve-cache/.*|/xet-bridge-us/.*"
)


def test_nothing_but_the_repos_own_routes_is_asked_upstream(case: Case) -> None:
    port, elsewhere = case.servers["pull-through"].port, f"{case.hub.cdn_endpoint}/stolen"
    case.hub.clear()
    encoded = quote(elsewhere, "")
    for target in (
        elsewhere, f"/{elsewhere}", f"/user/repo/resolve/main/{elsewhere}", f"/user/repo/resolve/main/{encoded}",
        f"/api/models/{elsewhere}", f"/api/models?cursor={elsewhere}", f"/user/repo/resolve/{encoded}/x",
        f"/api/models/user/repo/tree/main?cursor={elsewhere}", f"/api/models/user/new?u={elsewhere}",
        "/user/new/resolve/main/x?download=true&url=http://far.example", "/api/models/user/repo/xet-read-token/main",
        "/api/resolve-cache/models/user/repo/x/y",
    ):  # fmt: skip
        for headers in ({}, {"Referer": elsewhere, "X-Forwarded-Host": "far.example", "X-Original-URL": elsewhere}):
            ask(port, "GET", target, headers)

    asked = {(each.origin, each.path) for each in case.hub.requests}
    assert [
        path for origin, path in asked if not ASKED.fullmatch(path) or "stolen" in path or "far.example" in path
    ] == []


def test_no_header_of_a_client_goes_upstream(case: Case) -> None:
    case.hub.clear()
    ask(case.servers["pull-through"].port, "GET", "/api/models/user/unseen",
        {"Authorization": "Bearer hf_clients", "Cookie": "a=b", "X-Client": "secret"})  # fmt: skip

    names = {name for each in case.hub.requests for name in each.headers}
    assert "user-agent" in names
    assert not names & {"authorization", "cookie", "x-client", "origin"}


def test_offline_asks_nobody(case: Case) -> None:
    case.hub.clear()
    for target in ("/api/models/user/other", "/user/repo/resolve/main/no.txt", "/api/models/user/repo/revision/nope"):
        ask(case.servers["offline"].port, "GET", target)

    assert case.hub.requests == []


def test_a_private_name_is_not_asked_upstream(case: Case) -> None:
    case.hub.clear()
    ask(case.servers["pull-through"].port, "GET", "/home/made/resolve/main/config.json")

    assert case.hub.requests == []


# -- never itself


def test_a_server_that_leads_back_to_itself_says_so_at_once(tmp_path: Path) -> None:
    with FaultProxy(free := free_port()) as proxy, Served(tmp_path, port=free, HF_ENDPOINT=proxy.url) as served:
        began = monotonic()
        got = ask(served.port, "GET", "/api/models/user/repo")

        assert (got.status, "asks itself" in (got.get("X-Error-Message") or ""), monotonic() - began < 8) == (
            504,
            True,
            True,
        )


def test_a_server_does_not_take_its_own_address_for_upstream(tmp_path: Path) -> None:
    port = free_port()
    with Served(tmp_path, port=port, HF_ENDPOINT=f"http://localhost:{port}") as served:
        until(lambda: "this server itself" in served.log, "the note about HF_ENDPOINT")


def free_port() -> int:
    """Find a port that nobody listens at."""
    with FaultProxy(1) as taken:
        return taken.port
