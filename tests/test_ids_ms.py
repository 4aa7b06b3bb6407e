"""ModelScope's references, right and wrong; every other form is test_ids.py's and test_ids_wrong.py's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcache.core.artifact import Kind, RepoId
from hubcache.core.ids import canonical, parse
from hubcache.core.reference import Reference
from hubcache.core.scopenames import branch_of, branch_ref, cached_revision
from hubcache.errors import BadReference

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SITE = "https://modelscope.cn"


def scope(name: str, kind: Kind = "model", revision: str = "main", path: str | None = None) -> Reference:
    return Reference("ms", name, RepoId("ms", kind, name), revision, path)


NAME = scope("org/name")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ms:org/name", NAME),
        ("MS:org/name", NAME),
        ("ms:Qwen/Qwen2.5-0.5B", scope("Qwen/Qwen2.5-0.5B")),
        ("ms:org/name@v1.0", scope("org/name", revision="v1.0")),
        ("ms:org/name@feature/x", scope("org/name", revision="feature/x")),
        (f"ms:org/name@{COMMIT}", scope("org/name", revision=COMMIT)),
        ("ms:datasets/org/name", scope("org/name", "dataset")),
        ("ms:models/org/name", NAME),
        ("ms://org/name", NAME),
        ("ms://org/name/sub/x.txt", scope("org/name", path="sub/x.txt")),
        ("ms://org/name@v1/sub/", scope("org/name", revision="v1", path="sub/")),
        ("ms://datasets/org/name@v1/a.csv", scope("org/name", "dataset", "v1", "a.csv")),
        (f"{SITE}/models/org/name", NAME),
        (f"{SITE}/models/org/name/", NAME),
        (f"{SITE}/models/org/name?x=y#z", NAME),
        (f"{SITE}/models/org/name/summary", NAME),
        (f"{SITE}/models/org/name/files", NAME),
        ("modelscope.cn/models/org/name", NAME),
        ("https://www.modelscope.cn/models/org/name/tree/v1", scope("org/name", revision="v1")),
        ("http://modelscope.ai/models/org/name", NAME),
        ("https://www.modelscope.ai/datasets/org/name/files", scope("org/name", "dataset")),
        (f"{SITE}/models/org/name/tree/v1/sub", scope("org/name", revision="v1", path="sub/")),
        (f"{SITE}/models/org/name/resolve/v1/a/b%20c.bin", scope("org/name", revision="v1", path="a/b c.bin")),
        (f"{SITE}/models/org/name/file/view/v1/config.json?status=1", scope("org/name", "model", "v1", "config.json")),
    ],
)
def test_a_reference_is_read(text: str, expected: Reference) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["ms:org/name@main", "ms:org/name@master", f"{SITE}/models/org/name/tree/master"])
def test_main_and_master_are_one_branch(text: str) -> None:
    assert parse(text) == NAME


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("ms:org/name@master", "ms:org/name"),
        ("ms:org/name@v1", "ms:org/name@v1"),
        (f"{SITE}/datasets/org/name/tree/v1", "ms:datasets/org/name@v1"),
        (f"{SITE}/models/org/name/resolve/master/a.bin", "ms://org/name@main/a.bin"),
        ("ms://org/name@a%2Fb/sub/", "ms://org/name@a%2Fb/sub/"),
    ],
)
def test_the_canonical_text(text: str, written: str) -> None:
    assert canonical(parse(text)) == written


PART = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_.]{0,8}[A-Za-z0-9_])?", fullmatch=True)
PATH = st.lists(st.text("ab .%?#@é", min_size=1, max_size=5), max_size=3).map("/".join)


@given(PART, PART, st.sampled_from(["model", "dataset"]), st.sampled_from(["main", "v1", "a/b", COMMIT]), PATH)
def test_every_reference_reads_back(org: str, name: str, kind: Kind, revision: str, path: str) -> None:
    try:
        text = canonical(scope(f"{org}/{name}", kind, revision, path or None))
        reference = parse(text)
    except BadReference:
        return
    assert reference == scope(f"{org}/{name}", kind, revision, path or None)


@pytest.mark.parametrize(
    ("text", "phrase", "hint"),
    [
        ("ms:", "reads as a ModelScope name", "org/name"),
        ("ms:name", "a ModelScope repo has an org: 'name'", "ms:org/name"),
        ("ms:org/name@", "no revision follows the '@'", "ms:org/name"),
        ("ms:org/name@a..b", "not a revision", "ms:org/name"),
        ("ms:a/b/c", "at most one slash", "ms:a/b"),
        ("ms:a/b/c.txt", "at most one slash", "ms://a/b@main/c.txt"),
        ("ms:org/name:v1", "not a repo name", "ms:org/name@v1"),
        ("ms:org/na--me", "not a repo name", "ms:org/na-me"),
        ("ms:spaces/org/name", "a studio of ModelScope", "ms:org/name"),
        ("ms://org/name@v1/../x", "not a path inside a repo", "ms:org/name"),
        (f"{SITE}/models/name", "reads as a page of ModelScope", "ms:org/name"),
        (f"{SITE}/models", "no repo is named", "ms:org/name"),
        (f"{SITE}/models/org/name/feedback", "/feedback is no revision", "ms:org/name"),
        (f"{SITE}/models/org/name/file/view/v1", "no file follows", "ms:org/name@v1"),
        (f"{SITE}/models/org/name/resolve/v1/%2e%2e/x", "not a path inside a repo", "ms:org/name"),
    ],
)
def test_a_wrong_reference_says_what_is_wrong_and_the_nearest_right_one(text: str, phrase: str, hint: str) -> None:
    with pytest.raises(BadReference) as caught:
        parse(text)
    assert phrase in caught.value.message
    assert caught.value.hint == hint


def test_a_type_that_was_asked_for_must_agree() -> None:
    with pytest.raises(BadReference, match="names a dataset, the type asked for is model"):
        parse("ms:datasets/org/name", kind="model")


def test_a_page_of_neither_models_nor_datasets_is_a_url_like_any_other() -> None:
    assert parse(f"{SITE}/api/v1/models/org/name/repo?FilePath=a.bin").scheme == "http"


def test_a_mirror_at_the_same_host_comes_first() -> None:
    assert parse(f"{SITE}/hf/org/name", hub_urls=(f"{SITE}/hf",)).scheme == "hf"


def test_a_branch_has_a_ref_of_its_own() -> None:
    assert (branch_of("main"), branch_ref("main"), branch_ref("v1")) == ("master", "modelscope/master", "modelscope/v1")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ms:org/name", "modelscope/master"),
        ("ms:org/name@v1", "modelscope/v1"),
        (f"ms:org/name@{COMMIT}", COMMIT),
        ("ms:org/name@0123abc", "0123abc"),
        ("org/name", "main"),
    ],
)
def test_the_cache_keeps_it_under(text: str, name: str) -> None:
    assert cached_revision(parse(text)) == name
