"""The canonical form, and that every text reads back from it or is refused, soon; forms are test_ids.py's."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubcache.core.artifact import KINDS, Kind, RepoId
from hubcache.core.ids import canonical, parse
from hubcache.core.reference import Reference
from hubcache.errors import BadReference

V1 = "nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/pruned90_quant-none"
V2 = "obert-base-wikipedia_bookcorpus-pruned90"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA256 = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("org/name@main", "hf:org/name"),
        ("huggingface.co/datasets/org/name/tree/v1", "hf:datasets/org/name@v1"),
        ("hf:models/datasets/x", "hf:models/datasets/x"),
        ("datasets/squad", "hf:models/datasets/squad"),
        ("hf://org/name/config.json", "hf://org/name@main/config.json"),
        ("hf://org/name@refs/pr/1/a%20b%25/模.txt", "hf://org/name@refs%2Fpr%2F1/a%20b%25/模.txt"),
        ("hf://models/spaces/x@a%2Fb/sub/", "hf://models/spaces/x@a%2Fb/sub/"),
        (f"{V1}?recipe=x&checkpoint=preqat", f"zoo:{V1}?recipe=x&checkpoint=preqat"),
        (f"HTTP://H.org:80/x.zip#SHA256={SHA256}", f"http://h.org/x.zip#sha256={SHA256}"),
        ("dir/x.tgz", "file:dir/x.tgz"),
        ("file:///a%20b", "file:///a%20b"),
    ],
)
def test_the_canonical_text(text: str, written: str) -> None:
    assert canonical(parse(text)) == written


# Texts that look like references: their words, signs and traps in any order.
SIGNS = """
hf: hf:// zoo: file: file:// http:// https:// huggingface.co hf.co sparsezoo.neuralmagic.com/models/ h.org ms:
datasets spaces models resolve tree blob raw main refs pr convert api org name gpt2 config.json x.tar.gz .zip
~ . .. / // - -- @ : ? = & # % %2F %20 %25 %FF %C2%85 %00 #sha256= recipe checkpoint preqat C:\\
nlp a-b-c 模 é [::1] 127.0.0.1 :80 user:pw@ .git _
"""
TRAPS = [SHA256, COMMIT, V1, V2, " ", "\u3000", "\x00", "\u0085", "\u200b", "\ud800", "x" * 97]
WORDS = st.sampled_from([*SIGNS.split(), *TRAPS])
SOUP = st.lists(WORDS, max_size=12).map("".join)
PATHS = st.lists(WORDS, min_size=1, max_size=8).map("/".join)
PREFIXES = st.sampled_from(["hf:", "hf://org/name@main/", "hf://org/name@", "zoo:", "file:", "file:///", "ms:", "./"])
PAGES = st.sampled_from(["https://huggingface.co/", "https://h.org/", "huggingface.co/org/name/tree/"])
TEXTS = st.one_of(
    st.text(),
    SOUP,
    PATHS,
    st.builds(str.__add__, PREFIXES | PAGES, SOUP | PATHS | st.text()),
    st.builds("zoo:{}?{}={}".format, st.sampled_from([V1, V2]), WORDS, SOUP),
)


@given(TEXTS, st.sampled_from([None, *KINDS]), st.sampled_from([(), ("ms",)]))
@example("hf://org/name/" + "%/" * 3000 + "x", None, ())
@example("file:///%2F%2Fx", None, ())
@example("file:////host/x", None, ())
@example("hf://org/name@a%C2%A0b", None, ())
@example("hf://org/name@main/a%C2%80b", None, ())
def test_every_text_reads_back_from_its_canonical_form_or_is_refused(
    text: str, kind: Kind | None, schemes: tuple[str, ...]
) -> None:
    try:
        reference = parse(text, kind=kind, schemes=schemes)
    except BadReference as error:
        parse(error.hint, schemes=schemes)
        return
    repo = reference.repo
    assert parse(canonical(reference), kind=kind, schemes=schemes) == reference
    assert RepoId.parse(repo.name, hub=repo.hub, kind=repo.kind) == repo


NAME = st.from_regex(r"[a-zA-Z0-9_]([a-zA-Z0-9_.]{0,9}[a-zA-Z0-9_])?(/[a-z]([a-z.]?[a-z]){0,9})?", fullmatch=True)
REVISION = st.from_regex(r"[a-z%#@é][a-z0-9%#@é]{0,9}(/[a-z0-9]{1,9}){0,2}", fullmatch=True)
FILE = st.lists(st.text("ab01 %#@&=+é模\u3000", max_size=9).map("x{}x".format), min_size=1, max_size=4).map("/".join)


@given(NAME | st.sampled_from(["datasets/x", "models/y", "spaces"]), st.sampled_from(KINDS), REVISION, st.none() | FILE)
def test_every_reference_of_the_hub_can_be_written(name: str, kind: Kind, revision: str, path: str | None) -> None:
    try:
        repo = RepoId.parse(name, kind=kind)
    except BadReference:
        return
    for reference in (
        Reference("hf", name, repo, revision, path),
        Reference("hf", name, repo, "main", path and f"{path}/"),
    ):
        assert parse(canonical(reference)) == reference


def test_no_text_takes_long() -> None:
    starts = ["", "hf:", "hf://", "zoo:", "https://", "https://huggingface.co/", "./", "org/name@", "a:"]
    signs = ["a", "-", ".", "/", "@", ":", "%", "a-", "a/", "a.", "-.", "?a=", "//", ".git", "%2F", " ", "é", "a:a@"]
    begun = time.perf_counter()
    for text in (start + sign * (size // len(sign)) for start in starts for sign in signs for size in (8000, 10**6)):
        try:
            parse(text)
        except BadReference:
            continue
    assert time.perf_counter() - begun < 30  # 324 texts; quadratic in their length would be hours
