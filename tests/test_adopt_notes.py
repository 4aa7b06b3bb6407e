"""The notes of other tools, read: what they wrote comes back, and no bytes make the readers fail in another way."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcache.core.artifact import is_commit
from hubcache.core.digests import Blob, Digest
from hubcache.core.foreign import (
    GitRow,
    guess_sentence_name,
    packed_ref,
    read_commit_tree,
    read_download_note,
    read_git_tree,
    read_head,
    read_ollama,
    read_pointer,
    read_scope_id,
    remote_url,
    unmask,
    zoo_place,
)
from hubcache.core.gitobj import lfs_pointer
from hubcache.errors import BadReference
from hubcache.sources.zoo import place_file

HEX40 = st.text("0123456789abcdef", min_size=40, max_size=40)
HEX64 = st.text("0123456789abcdef", min_size=64, max_size=64)
SIZES = st.integers(0, 10**13)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1)
ROWS = st.lists(st.builds(GitRow, st.sampled_from(["100644", "100755", "40000", "120000", "160000"]), NAMES, HEX40))


@given(HEX64, SIZES)
def test_a_pointer_comes_back(digest: str, size: int) -> None:
    blob = Blob(Digest("sha256", digest), size)
    assert read_pointer(lfs_pointer(blob)) == blob


@given(ROWS)
def test_a_git_tree_comes_back(rows: list[GitRow]) -> None:
    body = b"".join(f"{row.mode} {row.name}".encode() + b"\0" + bytes.fromhex(row.oid) for row in rows)
    assert list(read_git_tree(body)) == rows


@given(HEX40, HEX40 | HEX64)
def test_a_download_note_comes_back(commit: str, etag: str) -> None:
    assert read_download_note(f"{commit}\n{etag}\n1700000000.5\n") == (commit, Digest.parse(etag))


@given(st.binary(max_size=300))
def test_no_bytes_make_a_reader_fail_but_by_its_own_error(content: bytes) -> None:
    read_pointer(content)
    read_scope_id(content)
    for reader in (read_commit_tree, read_ollama, lambda body: list(read_git_tree(body))):
        with suppress(BadReference):
            reader(content)


@given(st.text(max_size=300))
def test_no_text_makes_a_reader_fail_but_by_its_own_error(text: str) -> None:
    read_download_note(text)
    remote_url(text)
    packed_ref(text, "refs/heads/main")
    with suppress(BadReference):
        assert read_head(text)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["layers", "digest", "size", "mediaType"]) | st.text(), inner)))  # fmt: skip
def test_no_json_makes_the_reader_of_manifests_fail_but_by_its_own_error(value: object) -> None:
    with suppress(BadReference):
        read_ollama(json.dumps(value).encode())


@pytest.mark.parametrize("digest", ["sha256:../../x", "sha256:" + "A" * 64, "a" * 40, "md5:" + "a" * 64, ""])
def test_a_digest_that_is_none_ends_the_reading_of_a_manifest(digest: str) -> None:
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": 1}
    with pytest.raises(BadReference):
        read_ollama(json.dumps({"layers": [layer]}).encode())


def test_several_licences_of_a_manifest_keep_names_of_their_own() -> None:
    layer = {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "a" * 64, "size": 1}
    assert [row.name for row in read_ollama(json.dumps({"layers": [layer, layer]}).encode())] == [
        "LICENSE",
        "LICENSE-2",
    ]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_name_in_modelscopes_note_is_read_without_unpickling(protocol: int) -> None:
    assert read_scope_id(pickle.dumps({"id": "Org/Model-1___5"}, protocol)) == "Org/Model-1___5"
    assert unmask("Model-1___5") == "Model-1.5"


@pytest.mark.parametrize(("url", "expected"), [
    ("https://huggingface.co/org/name.git", "https://huggingface.co/org/name"),
    ("git@hf.co:org/name", "https://hf.co/org/name"),
    ("ssh://git@hf.co/datasets/org/name.git", "https://hf.co/datasets/org/name"),
])  # fmt: skip
def test_where_a_clone_came_from_is_read_as_a_web_address(url: str, expected: str) -> None:
    config = f'[core]\n\tbare = false\n[remote "fork"]\n\turl = https://x/y\n[remote "origin"]\n\turl = {url}\n'
    assert remote_url(config) == expected


@pytest.mark.parametrize(("folder", "name"), [
    ("sentence-transformers_all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
    ("sbert.net_models_distiluse", "sentence-transformers/distiluse"),
    ("org_a_b", "org/a_b"),
])  # fmt: skip
def test_the_name_behind_an_old_folder_is_guessed(folder: str, name: str) -> None:
    assert guess_sentence_name(folder) == name


@pytest.mark.parametrize(("name", "file_type"), [
    ("training/config.json", "training"), ("deployment/model.onnx", "deployment"), ("model.md", "card"),
    ("recipe_original.md", "recipe"), ("model.onnx", "onnx"), ("model.onnx.tar.gz", "onnx_gz"),
    ("sample-inputs.tar.gz", "inputs"), ("benchmarks.yaml", "benchmarking"),
])  # fmt: skip
def test_a_zoo_file_has_the_place_that_a_pull_gives_it(name: str, file_type: str) -> None:
    assert zoo_place(name) == place_file(name, file_type)


@given(st.text(max_size=80))
def test_a_head_that_is_read_is_a_commit_or_a_name_inside_refs(text: str) -> None:
    try:
        head = read_head(text)
    except BadReference:
        return
    assert is_commit(head) or ".." not in head
