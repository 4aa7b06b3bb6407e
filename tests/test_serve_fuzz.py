"""Whatever is asked of the server, the answer is one of its own: by a documented status and in its route's shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import HTTP
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubcache.core.routes import Route, WrongMethod, parse_route, split_revision
from hubcache.errors import HubcacheError, NotFound
from tests.support.hubrepo import HubFile, lfs_pointer
from tests.support.hubschema import SCHEMAS
from tests.support.mirrorcase import FILES, GATED, LOCAL, PARTIAL, PRIVATE, REFS, Case, mirror_case
from tests.support.rawhttp import Answer, ask

EXAMPLES = 60
MANY = 500
MODES = ("offline", "pull-through")
ACTIONS = ("start", "health", "whoami", "harnesses", "list", "info", "tree", "paths-info", "refs", "commits",
           "auth-check", "file")  # fmt: skip
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}

STATUSES = {200, 206, 304, 400, 403, 404, 405, 413, 416, 504}
OF_AN_ACTION = {
    "start": {200}, "health": {200}, "whoami": {200, 401}, "harnesses": {200}, "list": {200, 400},
    "info": {200, 400, 404}, "tree": {200, 400, 404}, "paths-info": {200, 400, 404, 413}, "refs": {200, 404},
    "commits": {200, 400, 404}, "auth-check": {200, 403, 404},
    "file": {200, 206, 304, 400, 403, 404, 416, 504},
}  # fmt: skip
CODES = {None, "RepoNotFound", "RevisionNotFound", "EntryNotFound", "GatedRepo"}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    with mirror_case(tmp_path_factory.mktemp("fuzz")) as made:
        yield made


# -- what is asked


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


HOSTILE = [
    "..", "../", "/../", "%2e%2e/", "%252e%252e%252f", "%00", "%2500", "\\", "%5c", "/.git/", "%2F", "//", "C:", "%ff",
    "%", "%zz", "#", "?", "&", "=", ";", "+", "%20", "%0d%0aX:y", "%7f", "@", ":", "~", "'", "resolve", "tree",
    "/refs/", "HEAD", "NUL", "a" * 300, "%C3%A9" * 90, "/x" * 400, "cursor=", "limit=-1", "expand[]=", "recursive=2",
    "?limit=1", "&limit=0", "&cursor=AAAA", "\u00e9", "[", "]", "{", "|", "^", "`", "<", '"',
]  # fmt: skip
REPOS = st.sampled_from([*FILES, LOCAL, PARTIAL, PRIVATE, GATED, ("models", "user/nope"), ("datasets", "user/repo")])
REVISIONS = st.sampled_from(
    [*REFS, *(quote(ref, safe="") for ref in REFS), "HEAD", "refs/heads/main", "nope", "c0" * 20]
)
PATHS = st.sampled_from([*(quote(path) for files in FILES.values() for path in files), "no.txt", "sub", "link.txt"])
NUMBERS = st.sampled_from(["", "0", "1", "2", "999999999", "-1", "1e3", "9" * 30])
FLAGS = st.sampled_from(["true", "1", "false", "", "x"])
FIELDS = st.sampled_from(
    ["sha", "siblings", "tags", "likes", "gated", "config", "xetEnabled", "usedStorage", "nonsense"]
)
QUERIES = {
    "list": st.tuples(
        st.sampled_from(["search", "author", "filter", "sort", "direction", "limit", "cursor", "full", "expand"]),
        NUMBERS | FLAGS | FIELDS | st.sampled_from(["repo", "user", "likes", "downloads", "-1"]),
    ),
    "info": st.tuples(st.sampled_from(["expand", "expand[]"]), FIELDS) | st.tuples(st.just("blobs"), FLAGS),
    "tree": st.tuples(st.sampled_from(["recursive", "expand"]), FLAGS)
    | st.tuples(st.sampled_from(["limit", "cursor"]), NUMBERS | st.text(max_size=8)),
    "refs": st.tuples(st.just("include_prs"), FLAGS),
    "commits": st.tuples(st.just("expand[]"), st.just("formatted")),
}


@st.composite
def plain_targets(draw: st.DrawFn, action: str) -> str:
    fixed = {"start": "/", "health": "/healthz", "whoami": "/api/whoami-v2", "harnesses": "/api/agent-harnesses"}
    if action in fixed:
        return fixed[action]
    kinds, name = draw(REPOS)
    query = urlencode(draw(st.lists(QUERIES.get(action, st.nothing()), max_size=3)) if action in QUERIES else [])
    tail = f"?{query}" if query else ""
    if action == "list":
        return f"/api/{kinds}{tail}"
    if action == "file":
        verb = draw(st.sampled_from(["resolve", "resolve", "raw"]))
        start = "" if kinds == "models" else f"/{kinds}"
        known = [quote(path) for path in FILES.get((kinds, name), ())]
        path = draw(st.sampled_from(known) | PATHS if known else PATHS)
        return f"{start}/{name}/{verb}/{draw(REVISIONS)}/{path}"
    verb = {"info": draw(st.sampled_from(["", "/revision"])), "tree": "/tree", "paths-info": "/paths-info",
            "refs": "/refs", "commits": "/commits", "auth-check": "/auth-check"}[action]  # fmt: skip
    revision = f"/{draw(REVISIONS)}" if verb in {"/revision", "/tree", "/paths-info", "/commits"} else ""
    folder = draw(st.sampled_from(["", "/sub", "/sub/deep", "/nope", "/config.json"])) if action == "tree" else ""
    return f"/api/{kinds}/{name}{verb}{revision}{folder}{tail}"


@st.composite
def targets(draw: st.DrawFn, action: str) -> str:
    """A target of the route, as it is or with something hostile in one or two places."""
    target = draw(plain_targets(action))
    for piece in draw(st.lists(st.sampled_from(HOSTILE), max_size=2) if draw(st.booleans()) else st.just([])):
        at = draw(st.integers(0, len(target)))
        target = target[:at] + piece + target[at + draw(st.integers(0, 3)) :]
    return target


RANGES = st.sampled_from(
    ["bytes=0-0", "bytes=-5", "bytes=3-", "bytes=0-1,4-5", "bytes=0-9999999999999999999999", "bytes=5-1", "bytes=-0",
     "bytes=", "lines=1-2", "bytes=0-5,3-8", ",".join(["bytes=0-0", *(f"{at}-{at}" for at in range(2, 40, 2))]),
     "bytes=9999999-", "bytes=a-b", "bytes=0-0,,  2-2 ,\t4-"]
)  # fmt: skip
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Range": RANGES,
        "If-None-Match": st.sampled_from(["*", '"x"', 'W/"' + "0" * 40 + '"', ", ".join(['"a"'] * 50), "garbage"]),
        "If-Range": st.sampled_from(['"x"', 'W/"x"', "Thu, 01 Jan 1970 00:00:00 GMT"]),
        "Origin": st.sampled_from(
            ["http://localhost:3000", "https://far.example", "null", "::", "https://app.example"]
        ),
        "Authorization": st.sampled_from(["Bearer hf_x", "Basic !!", "Bearer"]),
        "Accept": st.sampled_from(["*/*", "application/vnd.xet-fileinfo+json, */*"]),
        "Accept-Encoding": st.sampled_from(["gzip, deflate", "identity"]),
        "User-Agent": st.sampled_from(["hf_hub/2.4.0", "x" * 3000]),
    },
)
FORM, JSON = "application/x-www-form-urlencoded", "application/json"
ASKED_PATHS = st.lists(st.sampled_from(["config.json", "sub", "..", "/etc/passwd", "", "\u00fc", "no"]), max_size=5)
BODIES = st.one_of(
    st.tuples(st.just(FORM), st.builds(lambda paths: urlencode({"paths": paths, "expand": "1"}, True), ASKED_PATHS)),
    st.tuples(st.just(JSON), st.builds(lambda paths: json.dumps({"paths": paths, "expand": True}), ASKED_PATHS)),
    st.tuples(
        st.just(JSON), st.sampled_from(['{"paths":"sub"}', '{"paths":7}', "[[[", '{"paths":["\\ud800"]}', "null"])
    ),
    st.tuples(st.sampled_from([FORM, JSON, "", "text/\u00fc"]), st.text(max_size=40)),
)
METHODS = st.sampled_from(["GET"] * 9 + ["HEAD", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"])


@st.composite
def questions(draw: st.DrawFn, action: str) -> Asked:
    """A request of the route by any method; a body comes with what takes one."""
    method = "POST" if action == "paths-info" and draw(st.integers(0, 4)) else draw(METHODS)
    headers = draw(HEADERS) if draw(st.integers(0, 3)) else {}
    if method not in {"POST", "PUT", "PATCH"}:
        return Asked(method, draw(targets(action)), headers)
    kind, body = draw(BODIES)
    return Asked(method, draw(targets(action)), {**headers, "Content-Type": kind}, body.encode("utf-8", "replace"))


# -- what is answered


def judge(asked: Asked, got: Answer, again: Answer | None) -> Iterator[str]:
    """Name all that is wrong with an answer; `again` is the answer to the same by HEAD."""
    # A reason may repeat what was asked, and the hub's fields are asked for, too.
    if got.status == 500 or "xet" in got.head.replace((got.get("X-Error-Message") or "").lower(), ""):
        yield f"{got.status}: {got.head}"
    if is_no_http(asked) and got.status == 400:
        return
    yield from judge_length(asked, got)
    if asked.method == "OPTIONS":
        yield from [] if got.status == 204 else [f"OPTIONS is {got.status}"]
        return
    try:
        route = parse_route(asked.method, asked.target)
    except HubcacheError as error:
        yield from judge_refusal(asked, got, {status_of(error)})
        return
    yield from judge_routed(asked, route, got)
    if again is not None:
        yield from judge_head(asked, got, again)


def judge_length(asked: Asked, got: Answer) -> Iterator[str]:
    length = got.get("Content-Length")
    if asked.method == "HEAD":
        yield from ["a HEAD with a body"] if got.body else []
    elif length != (None if got.status in {204, 304} else str(len(got.body))):
        yield f"Content-Length {length} of {len(got.body)} bytes"


def judge_routed(asked: Asked, route: Route, got: Answer) -> Iterator[str]:
    if got.status in {200, 206}:
        yield from judge_answer(asked, route, got)
    elif got.status == 304:
        yield from [] if "If-None-Match" in asked.headers else ["304 unasked"]
    else:
        yield from judge_refusal(asked, got, OF_AN_ACTION[route.action])


def is_no_http(asked: Asked) -> bool:
    """Tell whether the parser below the server refuses the request line by itself."""
    return re.search(r'[^\x21-\x7e]|[<>"`{}|^\\#\[\]]', asked.target) is not None or not asked.target.startswith("/")


def status_of(error: HubcacheError) -> int:
    return 405 if isinstance(error, WrongMethod) else 404 if isinstance(error, NotFound) else 400


def judge_refusal(asked: Asked, got: Answer, statuses: set[int]) -> Iterator[str]:
    if got.status not in statuses & (STATUSES | {401}) or got.status in {200, 206}:
        yield f"{got.status}, not one of {statuses}"
    if not got.get("X-Error-Message") or got.get("X-Error-Code") not in CODES:
        yield f"a refusal without a reason: {got.head}"
    if asked.method != "HEAD" and json.loads(got.body) != {"error": got.get("X-Error-Message")}:
        yield f"a refusal that says {got.body[:200]!r}"
    if got.get("X-Error-Code") == "EntryNotFound" and got.get("X-Repo-Commit") and "/user/partial/" in asked.target:
        yield "a file of a repo that is known in part was declared absent"


def judge_answer(asked: Asked, route: Route, got: Answer) -> Iterator[str]:
    if got.status not in OF_AN_ACTION[route.action]:
        yield f"{got.status} for {route.action}"
    if asked.method == "HEAD":
        return
    if route.action == "file":
        yield from judge_file(route, got)
    elif route.action != "start":
        if b"xet" in got.body.lower():
            yield f"it mentions Xet: {got.body!r}"
        yield from SCHEMAS[route.action](json.loads(got.body))
    following = got.get("Link")
    if following is not None and not re.fullmatch(r'<http://localhost/api/[^<>"\s]*>; rel="next"', following):
        yield f"Link: {following}"


def judge_file(route: Route, got: Answer) -> Iterator[str]:
    """Hold the bytes against the repo's; nothing else may be served, whatever was asked."""
    if not re.fullmatch(r"[0-9a-f]{40}", got.get("X-Repo-Commit") or ""):
        yield "no commit"
    content = content_of(route)
    if content is None:
        yield f"bytes of nothing that is known: {got.body[:80]!r}"
    elif (got.get("Content-Type") or "").startswith("multipart/byteranges"):
        parts = message_from_bytes(
            b"Content-Type: " + got.get("Content-Type").encode() + b"\r\n\r\n" + got.body, policy=HTTP
        )
        for part in parts.iter_parts():
            yield from judge_range(part["Content-Range"], part.get_payload(decode=True), content)
    elif got.status == 206:
        yield from judge_range(got.get("Content-Range") or "", got.body, content)
    elif got.body != content:
        yield f"{len(got.body)} bytes that are not the file's"


def judge_range(said: str, body: bytes, content: bytes) -> Iterator[str]:
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", said)
    if found is None or int(found[3]) != len(content) or content[int(found[1]) : int(found[2]) + 1] != body:
        yield f"a range that is not the file's: {said}"


def content_of(route: Route) -> bytes | None:
    assert route.repo is not None
    kinds = next(kinds for kinds, kind in KINDS.items() if kind == route.kind)
    planted = {LOCAL: {"config.json": b"local"}, PARTIAL: {"config.json": b"{}", "empty.txt": b""}}
    files = (FILES | planted).get((kinds, route.repo.name), {})
    path = split_revision(route.rest, REFS)[1]
    if path not in files:
        return None
    file = HubFile.of(path, files[path])
    return lfs_pointer(file.sha256, file.size) if route.raw and file.sha256 else files[path]


def judge_head(asked: Asked, got: Answer, again: Answer) -> Iterator[str]:
    """Hold a HEAD against the GET, as far as no range was asked."""
    if again.body:
        yield "a HEAD with a body"
    own = {"date", "x-hubcache-stale", "x-hf-warning"}
    one, other = ([pair for pair in each.fields if pair[0] not in own] for each in (got, again))
    if (
        "Range" not in asked.headers
        and got.status != 504
        and (got.status, sorted(one)) != (again.status, sorted(other))
    ):
        yield f"HEAD says {again.status} {other}, GET {got.status} {one}"


def check(case: Case, mode: str, asked: Asked) -> None:
    port = case.servers[mode].port
    got = ask(port, asked.method, asked.target, asked.headers, asked.body)
    again = ask(port, "HEAD", asked.target, asked.headers) if asked.method == "GET" else None
    assert list(judge(asked, got, again)) == []


def run(case: Case, mode: str, action: str, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(questions(action))
    def every_answer_is_in_order(asked: Asked) -> None:
        check(case, mode, asked)

    every_answer_is_in_order()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("action", ACTIONS)
def test_whatever_a_route_is_asked_its_answer_is_in_order(case: Case, action: str, mode: str) -> None:
    run(case, mode, action, 3 * EXAMPLES if action == "file" else EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("action", ACTIONS)
def test_whatever_a_route_is_asked_many_times_its_answer_is_in_order(case: Case, action: str, mode: str) -> None:
    run(case, mode, action, MANY)


@pytest.mark.parametrize("mode", MODES)
def test_after_all_that_the_server_is_well(case: Case, mode: str) -> None:
    got = ask(case.servers[mode].port, "GET", "/healthz")

    assert (case.servers[mode].is_running(), got.status, "Traceback" in case.servers[mode].log) == (True, 200, False)
