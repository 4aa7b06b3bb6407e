"""What a request target says: routes, revisions and paths; what is answered is the server's."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from contextlib import suppress
from time import process_time
from urllib.parse import quote, urlencode

import pytest
from huggingface_hub import hf_hub_url
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hubcache.core.artifact import KINDS, Kind, RepoId, parse_path, parse_revision
from hubcache.core.routes import Route, WrongMethod, parse_route, split_revision, whole_revision
from hubcache.errors import BadReference, NotFound, RepoNotFound

COMMIT = "3adcfc60aa11bb22cc33dd44ee55ff6677889900"
NAME = RepoId("hf", "model", "org/name")
GPT2 = RepoId("hf", "model", "gpt2")
DATASET = RepoId("hf", "dataset", "org/name")
SPACE = RepoId("hf", "space", "org/name")

ROUTES = [
    ("/", Route("start")),
    ("/healthz", Route("health")),
    ("/api/whoami-v2", Route("whoami")),
    ("/api/agent-harnesses", Route("harnesses")),
    ("/api/models", Route("list", kind="model")),
    ("/api/datasets?limit=5", Route("list", kind="dataset", query={"limit": ("5",)})),
    ("/api/spaces/", Route("list", kind="space")),
    ("/api/models/gpt2", Route("info", GPT2, "model")),
    ("/api/models/org/name?blobs=true", Route("info", NAME, "model", query={"blobs": ("true",)})),
    ("/api/models/org/name/revision/HEAD", Route("info", NAME, "model", ("HEAD",))),
    ("/api/models/org/name/revision/refs%2Fpr%2F1", Route("info", NAME, "model", ("refs/pr/1",))),
    (f"/api/datasets/org/name/tree/{COMMIT}", Route("tree", DATASET, "dataset", (COMMIT,))),
    ("/api/models/gpt2/tree/main", Route("tree", GPT2, "model", ("main",))),
    ("/api/models/org/name/tree/main/sub%2Fdeep", Route("tree", NAME, "model", ("main", "sub/deep"))),
    ("/api/models/org/name/tree/refs/pr/1", Route("tree", NAME, "model", ("refs", "pr", "1"))),
    ("/api/models/gpt2/tree/refs/pr/1", Route("tree", GPT2, "model", ("refs", "pr", "1"))),
    ("/api/models/gpt2/revision/tree", Route("info", GPT2, "model", ("tree",))),
    ("/api/models/org/name/refs?include_prs=1", Route("refs", NAME, "model", query={"include_prs": ("1",)})),
    ("/api/models/gpt2/refs", Route("refs", GPT2, "model")),
    (
        "/api/models/org/name/commits/main?expand[]=formatted",
        Route("commits", NAME, "model", ("main",), {"expand": ("formatted",)}),
    ),
    ("/api/models/org/name/auth-check", Route("auth-check", NAME, "model")),
    ("/api/models/org/name/auth-check/write", Route("auth-check", NAME, "model", ("write",))),
    ("/org/name/resolve/main/config.json", Route("file", NAME, "model", ("main", "config.json"))),
    ("/gpt2/resolve/main/config.json", Route("file", GPT2, "model", ("main", "config.json"))),
    ("/gpt2/resolve/resolve/config.json", Route("file", GPT2, "model", ("resolve", "config.json"))),
    ("/gpt2/resolve/raw/config.json", Route("file", GPT2, "model", ("raw", "config.json"))),
    ("/datasets/org/name/resolve/main/a/b.csv", Route("file", DATASET, "dataset", ("main", "a", "b.csv"))),
    ("/datasets/gsm/resolve/main/b", Route("file", RepoId("hf", "dataset", "gsm"), "dataset", ("main", "b"))),
    ("/spaces/org/name/resolve/main/app.py", Route("file", SPACE, "space", ("main", "app.py"))),
    ("/org/name/raw/main/config.json", Route("file", NAME, "model", ("main", "config.json"), raw=True)),
    ("/org/resolve/resolve/main/f", Route("file", RepoId("hf", "model", "org/resolve"), "model", ("main", "f"))),
    ("/org/name/resolve/main/resolve/raw", Route("file", NAME, "model", ("main", "resolve", "raw"))),
    ("//org//name/resolve/main//x", Route("file", NAME, "model", ("main", "x"))),
    ("/org/name/resolve/main/a%20b%C3%A9.txt", Route("file", NAME, "model", ("main", "a bé.txt"))),
    ("/org/name/resolve/main/bé.txt", Route("file", NAME, "model", ("main", "bé.txt"))),
    ("/org/name/resolve/main/.gitattributes", Route("file", NAME, "model", ("main", ".gitattributes"))),
    ("/org/name/resolve/main/...x", Route("file", NAME, "model", ("main", "...x"))),
    ("/org/name/resolve/main/a%252Fb", Route("file", NAME, "model", ("main", "a%2Fb"))),
    ("/org%2Fname/resolve/main/x", Route("file", NAME, "model", ("main", "x"))),
    ("http://127.0.0.1:8090/healthz", Route("health")),
    ("HTTPS://hub.example", Route("start")),
    ("http://hub.example?x=1", Route("start", query={"x": ("1",)})),
]


@pytest.mark.parametrize(("target", "route"), ROUTES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_target_reads_as_its_route(target: str, route: Route) -> None:
    assert parse_route("GET", target) == route


@pytest.mark.parametrize(("target", "route"), ROUTES[:3], ids=lambda value: value if isinstance(value, str) else "")
def test_head_reads_as_get_does(target: str, route: Route) -> None:
    assert parse_route("HEAD", target) == route


NO_ROUTES = [
    "/x",
    "/org/name",
    "/org/name/resolve",
    "/org/name/resolve/main",
    "/org/name/blob/main/x",
    "/org/name/info/refs?service=git-upload-pack",
    "/models/org/name/resolve/main/x",
    "/kernels/org/name/resolve/main/x",
    "/datasets",
    "/datasets/resolve/main/x",
    "/api",
    "/api/kernels",
    "/api/papers",
    "/api/papers/1",
    "/api/models/org/name/other",
    "/api/models/org/name/tree",
    "/api/models/org/name/refs/x",
    "/api/models/org/name/auth-check/read",
    f"/api/models/org/name/xet-read-token/{COMMIT}",
    "/healthz/x",
]


@pytest.mark.parametrize("target", NO_ROUTES)
def test_any_other_path_is_not_found(target: str) -> None:
    with pytest.raises(NotFound) as caught:
        parse_route("GET", target)
    assert type(caught.value) is NotFound


def test_a_kernel_is_a_repo_that_is_not_here() -> None:
    with pytest.raises(RepoNotFound):
        parse_route("GET", "/api/kernels/org/name/revision/main")


HOSTILE = [
    "",
    "*",
    "healthz",
    "hub.example:443",
    "ftp://hub.example/healthz",
    "/org/name/resolve/main/../../x",
    "/org/name/resolve/main/./x",
    "/org/name/resolve/main/..",
    "/org/name/resolve/main/%2e%2E/x",
    "/org/name/resolve/main/a%2F..%2Fx",
    "/org/name/resolve/..%2Fx/x",
    "/../etc/passwd",
    "/org/name/resolve/main/x%00",
    "/org/name/resolve/main/x\x00",
    "/org/name/resolve/main/a\\b",
    "/org/name/resolve/main/a%5Cb",
    "/org/name/resolve/main/%FF",
    "/org/name/resolve/main/%C0%AE%C0%AE/x",
    "/org/name/resolve/main/%C3/%A9",
    "/org/name/resolve/main/x\udcff",
    "/org/name/resolve/main/100%",
    "/org/name/resolve/main/%zz",
    "/org/name/resolve/main/x#y",
    "/org/name/resolve/main/x\r\ny",
    "/org/name/resolve/main/x y",
    "/api/models?search=%00",
    "/api/models?search=%FF",
    "/api/models?search=%",
    "/api/models/-x",
    "/api/models/a..b/tree/main",
    "/api/models/a--b",
    "/org/name.git/resolve/main/x",
    "/org%2Fname/x/resolve/main/y",
    "/api/models/org/n%C3%A9",
    f"/{'x' * 97}/resolve/main/y",
]


@pytest.mark.parametrize("target", HOSTILE, ids=ascii)
def test_a_hostile_or_malformed_target_is_refused(target: str) -> None:
    with pytest.raises(BadReference):
        parse_route("GET", target)


def test_a_post_asks_for_paths() -> None:
    assert parse_route("POST", "/api/models/org/name/paths-info/main") == Route("paths-info", NAME, "model", ("main",))


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("POST", "/org/name/resolve/main/x", ("GET", "HEAD")),
        ("PUT", "/api/models/org/name/paths-info/main", ("GET", "HEAD", "POST")),
        ("DELETE", "/api/models", ("GET", "HEAD")),
        ("get", "/", ("GET", "HEAD")),
    ],
)
def test_a_wrong_method_says_which_are_right(method: str, target: str, allowed: tuple[str, ...]) -> None:
    with pytest.raises(WrongMethod) as caught:
        parse_route(method, target)
    assert caught.value.allowed == allowed


def test_an_upload_is_no_route() -> None:
    with pytest.raises(NotFound):
        parse_route("POST", "/api/models/org/name/preupload/main")


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("expand=a&expand=b", {"expand": ("a", "b")}),
        ("expand[]=a&expand%5B%5D=b&expand=c", {"expand": ("a", "b", "c")}),
        ("search=a+b%2Bc%3D%26", {"search": ("a b+c=&",)}),
        ("a&b=&c=d=e&&", {"a": ("",), "b": ("",), "c": ("d=e",)}),
        ("search=caf%C3%A9/..\\?", {"search": ("café/..\\?",)}),
    ],
)
def test_a_query_keeps_every_value_decoded(query: str, values: dict[str, tuple[str, ...]]) -> None:
    assert parse_route("GET", f"/api/models?{query}").query == values


KNOWN = ("main", "feature/x", "feature/x/y", "refs/pr/1", "refs/convert/a/b")


@pytest.mark.parametrize(
    ("rest", "revision", "path"),
    [
        (("main",), "main", ""),
        (("HEAD",), "main", ""),
        (("HEAD", "a", "b"), "main", "a/b"),
        ((COMMIT, "a/b", "c"), COMMIT, "a/b/c"),
        (("refs/pr/1", "a"), "refs/pr/1", "a"),
        (("refs", "pr", "1"), "refs/pr/1", ""),
        (("refs", "pr", "77", "a", "b"), "refs/pr/77", "a/b"),
        (("refs", "convert", "parquet", "a"), "refs/convert/parquet", "a"),
        (("refs", "convert", "a", "b", "c"), "refs/convert/a/b", "c"),
        (("refs", "heads", "v1", "a"), "v1", "a"),
        (("refs", "heads", "feature", "x", "a"), "feature/x", "a"),
        (("refs/heads/feature/z", "a"), "feature/z", "a"),
        (("refs", "tags", "v1"), "v1", ""),
        (("refs/tags/v1",), "v1", ""),
        (("feature", "x", "a"), "feature/x", "a"),
        (("feature", "x", "y", "a"), "feature/x/y", "a"),
        (("feature", "x", "y/a"), "feature/x", "y/a"),
        (("feature", "xy", "a"), "feature", "xy/a"),
        (("feature/z", "a"), "feature/z", "a"),
        (("other", "x", "a"), "other", "x/a"),
        (("refs", "pr"), "refs", "pr"),
        (("refs", "notes", "a"), "refs", "notes/a"),
    ],
    ids=str,
)
def test_a_rest_splits_into_revision_and_path(rest: tuple[str, ...], revision: str, path: str) -> None:
    assert split_revision(rest, KNOWN) == (revision, path)


@pytest.mark.parametrize(
    "rest",
    [(), ("",), ("-x",), ("a b",), ("/",), ("main", "a//b"), ("main", "C:x"), ("main", ".git", "x"), ("a..b", "x")],
)
def test_a_rest_that_is_no_revision_or_path_is_refused(rest: tuple[str, ...]) -> None:
    with pytest.raises(BadReference):
        split_revision(rest, KNOWN)


@pytest.mark.parametrize(
    ("rest", "revision"),
    [
        (("feature", "new", "x"), "feature/new/x"),
        (("refs", "pr", "1"), "refs/pr/1"),
        (("refs/heads/a/b",), "a/b"),
        (("HEAD",), "main"),
    ],
)
def test_a_rest_without_a_path_is_one_revision(rest: tuple[str, ...], revision: str) -> None:
    assert whole_revision(rest) == revision


def taken(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except BadReference:
        return False
    return True


PART = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,8}[A-Za-z0-9_])?", fullmatch=True)
NAMES = st.one_of(PART, st.tuples(PART, PART).map("/".join)).filter(lambda name: taken(RepoId.parse, name))
# A repo named like a route's own word is read as that word, as on the Hub, where such names are reserved.
WORDS = {"api", "models", "datasets", "spaces", "kernels", "healthz", "resolve", "raw", "tree", "revision", "refs"}
REVISIONS = st.one_of(
    st.sampled_from(["main", "refs/pr/1", "refs/convert/parquet", "feature/x/y", COMMIT]),
    st.lists(PART, min_size=1, max_size=3).map("/".join),
).filter(lambda text: taken(parse_revision, text) and not text.startswith(("refs/heads/", "refs/tags/")))
PATHS = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4).map("/".join)


def repo_from(kind: Kind, name: str) -> RepoId:
    assume(not WORDS & set(name.split("/")))
    return RepoId.parse(name, kind=kind)


@given(st.sampled_from(KINDS), NAMES, REVISIONS, PATHS, st.sampled_from(["resolve", "raw"]))
def test_a_files_url_reads_back(kind: Kind, name: str, revision: str, path: str, verb: str) -> None:
    repo = repo_from(kind, name)
    assume(taken(parse_path, path) and revision != "HEAD")
    route = parse_route("GET", f"/{repo}/{verb}/{quote(revision, safe='')}/{quote(path)}")
    assert (route.action, route.repo, route.kind, route.raw) == ("file", repo, kind, verb == "raw")
    assert split_revision(route.rest, ()) == (revision, path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_url_that_huggingface_hub_asks_reads_back(kind: Kind) -> None:
    url = hf_hub_url("org/name", "a b/é#%?.txt", repo_type=kind, revision="refs/pr/1", endpoint="http://127.0.0.1:1")
    route = parse_route("GET", url)
    assert route.repo == RepoId("hf", kind, "org/name")
    assert split_revision(route.rest, ()) == ("refs/pr/1", "a b/é#%?.txt")


@given(st.sampled_from(KINDS), NAMES, REVISIONS, PATHS, st.booleans())
def test_a_trees_url_reads_back_with_a_revision_encoded_or_raw(
    kind: Kind, name: str, revision: str, path: str, raw: bool
) -> None:
    repo = repo_from(kind, name)
    # Of a repo of one segment, `tree/refs` and its like are read as the other repo's refs.
    assume(taken(parse_path, path) and revision not in {"HEAD", *WORDS})
    written = revision if raw else quote(revision, safe="")
    target = f"/api/{kind}s/{name}/tree/{written}/{quote(path, safe='')}"
    route = parse_route("GET", target)
    assert (route.action, route.repo, route.kind) == ("tree", repo, kind)
    assert split_revision(route.rest, (revision,)) == (revision, path)


@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), max_size=6))
def test_a_query_reads_back(pairs: list[tuple[str, str]]) -> None:
    assume(not any("\x00" in text or text.endswith("[]") for pair in pairs for text in pair))
    values: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        values[name] = (*values.get(name, ()), value)
    assert parse_route("GET", f"/api/models?{urlencode(pairs)}").query == values


def read_whole(method: str, target: str) -> None:
    """Read the target as the server does; what it raises beyond the declared refusals fails the test."""
    with suppress(BadReference, NotFound, WrongMethod):
        route = parse_route(method, target)
        assert route.repo is None or RepoId.parse(route.repo.name, kind=route.repo.kind) == route.repo
        if route.rest:
            revision, path = split_revision(route.rest, KNOWN)
            assert parse_revision(revision) == revision
            assert not path or parse_path(path) == path


SIGNS = (*"/.%?&=+#:@~\\\x00\udcffé1", "//", "..", "--", "[]", "http://h", "%2e", "%2F", "%5C", "%00", "%FF", "%C3%A9")
TREES = ("resolve", "raw", "tree", "revision", "refs", "paths-info", "commits", "auth-check", "write")
PLACES = ("main", "HEAD", "pr", "heads", "refs%2Fpr%2F1", "CON", ".git", "org", "name", "gpt2", "api", "kernels")
PIECES = st.lists(st.sampled_from((*SIGNS, *TREES, *PLACES, "models", "datasets", "spaces")), max_size=14)


@given(st.sampled_from(["GET", "HEAD", "POST", "", "é"]), st.one_of(PIECES.map("".join), PIECES.map("/".join)))
@example("GET", "http://")
def test_no_target_is_read_into_anything_unsafe(method: str, target: str) -> None:
    read_whole(method, target)
    read_whole(method, f"/org/name/resolve/{target}")


@given(st.text(), st.text())
def test_no_text_is_read_into_anything_unsafe(method: str, target: str) -> None:
    read_whole(method, target)
    read_whole("GET", f"/{target}")


@given(st.binary())
def test_no_bytes_are_read_into_anything_unsafe(target: bytes) -> None:
    read_whole("GET", "/org/name/resolve/main/" + target.decode("utf-8", "surrogateescape"))


@given(st.lists(st.text(max_size=5), max_size=5), st.lists(st.text(max_size=9), max_size=3))
def test_no_rest_is_split_into_anything_unsafe(rest: list[str], known: list[str]) -> None:
    with suppress(BadReference):
        revision, path = split_revision(rest, known)
        assert parse_revision(revision) == revision
        assert not path or parse_path(path) == path


def test_a_files_url_is_read_in_microseconds() -> None:
    target = f"/sentence-transformers/all-MiniLM-L6-v2/resolve/{COMMIT}/onnx/model.onnx"
    seconds = min(timeit.repeat(lambda: parse_route("GET", target), timer=process_time, number=1000, repeat=9)) / 1000
    assert seconds < 15e-6
