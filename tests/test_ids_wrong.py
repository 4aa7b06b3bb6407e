"""Wrong references: what the error says, and the nearest right one; the right ones are test_ids.py's."""

from __future__ import annotations

from typing import Any

import pytest

from hubcache.core.artifact import Kind
from hubcache.core.ids import LIMIT, parse
from hubcache.errors import BadReference

V1 = "nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/pruned90_quant-none"
V2 = "obert-base-wikipedia_bookcorpus-pruned90"

# What was typed, what the message has to say, and the nearest right form.
WRONG = [
    ("", "empty", "org/name"),
    ("  \t", "empty", "org/name"),
    ("org/my name", "no whitespace", "org/my-name"),
    ("org / name", "no whitespace", "org/name"),
    ("org/na\x00me", "no control characters", "org/name"),
    ("https://h.org/a b.zip", "no whitespace", "https://h.org/a%20b.zip"),
    ("x" * (LIMIT + 1), "longer than", "org/name"),
    ("a/b/c", "reads as a hub name: a repo name has at most one slash", "a/b"),
    ("org/name/file.txt", "at most one slash", "hf://org/name@main/file.txt"),
    ("datasets/org/name/a/b.csv", "at most one slash", "hf://datasets/org/name@main/a/b.csv"),
    ("org//name", "at most one slash", "org/name"),
    ("org/name:main", "reads as a hub name", "org/name@main"),
    ("org/name#v1", "reads as a hub name", "org/name@v1"),
    ("gpt2:main", "no source has the scheme 'gpt2'", "gpt2@main"),
    ("org/name@", "no revision follows", "org/name"),
    ("hf:org/name@", "no revision follows", "hf:org/name"),
    ("org/name@a..b", "not a revision: 'a..b'", "hf:org/name"),
    ("org/name.git", "does not end with .git", "org/name"),
    ("a--b", "no '--'", "a-b"),
    ("-org/name-", "not a repo name: '-org'", "org/name"),
    ("hf//org/name", "lacks the ':'", "hf://org/name"),
    ("hf:/org/name", "at most one slash", "hf://org/name"),
    ("hf:a/b/c", "at most one slash", "hf:a/b"),
    ("hf://datasets/", "no repo is named", "hf:org/name"),
    ("hf://org/name@/x", "not a revision: ''", "hf:org/name"),
    ("hf://org/name/../x", "not a path inside a repo", "hf:org/name"),
    ("hf://org/name/a%FF", "not UTF-8", "hf:org/name"),
    ("dataset/org/name", "at most one slash", "datasets/org/name"),
    ("hf:space/org/name", "at most one slash", "hf:spaces/org/name"),
    ("https://huggingface.co", "a page of the hub: no repo is named", "hf:org/name"),
    ("https://huggingface.co/settings/tokens", "no repo is named", "hf:org/name"),
    ("https://huggingface.co/docs/hub", "no repo is named", "hf:org/name"),
    ("https://huggingface.co/datasets?search=x", "no repo is named", "hf:org/name"),
    ("https://huggingface.co/api/datasets/org/name/tree/main", "no repo is named", "hf:datasets/org/name"),
    ("https://huggingface.co/org/name/tree", "no revision follows /tree", "hf:org/name"),
    ("https://huggingface.co/org/name/blob/v1", "no file follows /blob/v1", "hf:org/name@v1"),
    ("https://huggingface.co/org/name/discussions/1", "/discussions is no revision", "hf:org/name"),
    ("zoo:bert-base", "3 to 5 parts", "zoo:bert-base-wikipedia_bookcorpus-pruned90"),
    ("zo:bert-base-sst2-pruned", "no source has the scheme 'zo'", "zoo:bert-base-sst2-pruned"),
    ("zoo:zoo:a-b-c", "not the parts of a V2 stub", "zoo:zoo_a-b-c"),
    (f"{V1}/transfer_learn", "ends with its 7th part", f"zoo:{V1}?recipe_type=transfer_learn"),
    (f"zoo:{V1}?recip=x", "no argument 'recip'", f"zoo:{V1}?recipe=x"),
    ("https://sparsezoo.neuralmagic.com/models/bert", "3 to 5 parts", "zoo:bert-base-wikipedia_bookcorpus-pruned90"),
    ("https:/h.org/x.zip", "not an http or https URL", "https://h.org/x.zip"),
    ("https//h.org/x.zip", "lacks the ':'", "https://h.org/x.zip"),
    ("https://h.org", "ends in no file's name", "https://h.org/model.tar.gz"),
    ("https://h.org/a/", "ends in no file's name", "https://h.org/a/model.tar.gz"),
    ("https://h.org:0/x.zip", "not a port", "https://h.org/x.zip"),
    ("https://h!.org/x.zip", "not a host", "https://host/model.tar.gz"),
    ("https://h.org/x.zip#sha256=abc", "64 hex digits", "https://h.org/x.zip"),
    (r"C:\models\x", "a Windows path", r"file:C:\models\x"),
    ("file://host/x", "'host' is a host", "file:host/x"),
    ("file:", "names no file or folder", "./folder"),
    ("gs:org/name", "no source has the scheme 'gs' (there are hf, zoo, ms, https, http, file)", "hf:org/name"),
]


@pytest.mark.parametrize(("text", "phrase", "hint"), WRONG)
def test_a_wrong_reference_says_what_is_wrong_and_the_nearest_right_one(text: str, phrase: str, hint: str) -> None:
    with pytest.raises(BadReference) as caught:
        parse(text)
    assert phrase in caught.value.message
    assert caught.value.hint == hint
    parse(hint)


@pytest.mark.parametrize(
    ("text", "kind", "phrase", "hint"),
    [
        ("hf://spaces/org/name", "dataset", "names a space, the type asked for is dataset", "hf:datasets/org/name"),
        ("hf://org/name", "dataset", "names a model", "hf:datasets/org/name"),
        ("hf:models/org/name", "space", "names a model", "hf:spaces/org/name"),
        ("https://huggingface.co/datasets/a/b", "model", "names a dataset", "hf:a/b"),
        (f"zoo:{V2}", "dataset", "names a model", f"zoo:{V2}"),
    ],
)
def test_the_type_asked_for_and_the_type_named_must_agree(text: str, kind: Kind, phrase: str, hint: str) -> None:
    with pytest.raises(BadReference, match=phrase) as caught:
        parse(text, kind=kind)
    assert caught.value.hint == hint


@pytest.mark.parametrize(("kind", "hint"), [("datasets", "dataset"), ("modle", "model"), ("", "one of: model, ")])
def test_a_misspelt_type_is_a_bad_reference(kind: Any, hint: str) -> None:
    with pytest.raises(BadReference, match="no such repo type") as caught:
        parse("org/name", kind=kind)
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("https://ann:s3cret@huggingface.co/org/name", "https://huggingface.co/org/name"),
        ("https://s3cret@h.org/x.zip", "https://h.org/x.zip"),
        ("https:/ann:s3cret@h.org/x.zip", "https://h.org/x.zip"),
        ("https//ann:s3cret@h.org/x.zip", "https://h.org/x.zip"),
        ("hf://ann:s3cret@org/name", "hf://org/name"),
        ("ftp://ann:s3cret@h.org/x.zip", "org/name"),
        ("ann:s3cret@huggingface.co/org/name", "org/name"),
        ("https://h.org/?token=s3cret", "https://h.org/model.tar.gz"),
        ("https://h.org:0/x.zip?token=s3cret", "https://h.org/x.zip"),
        ("https://h.org/x.zip?token=s3cret#sha256=1", "https://h.org/x.zip"),
    ],
)
def test_no_secret_is_repeated_in_an_error(text: str, hint: str) -> None:
    with pytest.raises(BadReference) as caught:
        parse(text)
    assert "s3cret" not in caught.value.message + caught.value.hint
    assert caught.value.hint == hint
