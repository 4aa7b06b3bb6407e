"""What the Hub's API answers of a repo, read by huggingface_hub itself; git names the folders alike."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Any, get_args
from urllib.parse import urlencode

import pytest
from huggingface_hub import DatasetInfo, HfApi, ModelInfo, SpaceInfo
from huggingface_hub.hf_api import ExpandModelProperty_T, RepoFile, RepoFolder
from hypothesis import given
from hypothesis import strategies as st

from hubcache.core.about import About
from hubcache.core.answers import MOST_PATHS, commits, parse_paths, paths_info, refs, repo_info, timestamp, tree
from hubcache.core.artifact import Artifact, Entry, Manifest, RepoId, RepoPath, Revision
from hubcache.core.digests import Blob, digest_bytes
from hubcache.core.gitobj import entry_for
from hubcache.core.wire import parse_tree
from hubcache.errors import BadReference, EntryNotFound
from tests.support.httpd import Origin, Reply, Request

REPO = RepoId("hf", "model", "org/tiny")
COMMIT = "3adcfc60" * 5
FILES = {
    "README.md": b"# tiny\n",
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "sub/deep/n.txt": b"deep",
    "sub/n.txt": b"n",
    "sub.txt": b"a name that sorts around its folder",
}
CREATED, MODIFIED = 1_646_263_744.25, 1_700_000_000.0
ABOUT = About(
    private=True,
    gated=True,
    created=CREATED,
    modified=MODIFIED,
    downloads=12,
    likes=3,
    tags=("transformers", "license:mit"),
    pipeline_tag="fill-mask",
    library="transformers",
    sdk="gradio",
    card={"license": "mit", "language": ["en"], "models": ["org/tiny"]},
    config={"model_type": "bert", "architectures": ["BertModel"]},
)


def entry_of(path: str, content: bytes) -> Entry:
    sha1, sha256 = (digest_bytes(algorithm, content).hex for algorithm in ("git-sha1", "sha256"))
    return entry_for(path, len(content), git_sha1=sha1, sha256=sha256)


def artifact_of(files: dict[str, bytes] = FILES, repo: RepoId = REPO) -> Artifact:
    manifest = Manifest({RepoPath(path): entry_of(path, content) for path, content in files.items()})
    return Artifact(repo, Revision("main", COMMIT), manifest)


def listed(files: dict[str, bytes] = FILES, **how: Any) -> list[str]:
    return [row["path"] for row in tree(artifact_of(files), About(), **how)]


@contextmanager
def answering(answer: Callable[[Request], Any]) -> Iterator[HfApi]:
    def reply(request: Request) -> Reply:
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(answer(request)).encode())

    origin = Origin(reply)
    origin.start()
    try:
        yield HfApi(endpoint=origin.url, token=False)
    finally:
        origin.stop()


# What a repo is


def test_a_model_is_what_its_client_reads() -> None:
    found = ModelInfo(**repo_info(artifact_of(), ABOUT))
    told = (found.id, found.author, found.sha, found.private, found.gated, found.disabled, found.downloads, found.likes)
    assert told == ("org/tiny", "org", COMMIT, True, "auto", False, 12, 3)


def test_a_model_has_its_task_library_tags_and_config() -> None:
    found = ModelInfo(**repo_info(artifact_of(), ABOUT))
    assert found.pipeline_tag == "fill-mask"
    assert found.library_name == "transformers"
    assert found.tags == ["transformers", "license:mit"]
    assert found.config == {"model_type": "bert", "architectures": ["BertModel"]}


def test_the_card_is_read_as_a_model_card() -> None:
    card = ModelInfo(**repo_info(artifact_of(), ABOUT)).card_data
    assert card is not None
    assert (card.license, card.language) == ("mit", ["en"])


def test_dates_are_read_as_the_seconds_they_are() -> None:
    found = ModelInfo(**repo_info(artifact_of(), ABOUT))
    assert found.created_at == datetime.fromtimestamp(int(CREATED), UTC)
    assert found.last_modified == datetime.fromtimestamp(MODIFIED, UTC)


def test_a_repo_of_which_nothing_is_known_is_read_alike() -> None:
    found = ModelInfo(**repo_info(artifact_of(), About()))
    assert (found.created_at, found.last_modified, found.gated, found.card_data) == (None, None, False, None)


def test_a_dataset_is_what_its_client_reads() -> None:
    artifact = artifact_of(repo=RepoId("hf", "dataset", "org/rows"))
    found = DatasetInfo(**repo_info(artifact, ABOUT))
    assert (found.id, found.sha, found.tags) == ("org/rows", COMMIT, ["transformers", "license:mit"])


def test_a_space_has_its_sdk_and_models() -> None:
    found = SpaceInfo(**repo_info(artifact_of(repo=RepoId("hf", "space", "org/demo")), ABOUT))
    assert (found.id, found.sdk, found.models) == ("org/demo", "gradio", ["org/tiny"])


def test_only_a_model_has_a_model_id() -> None:
    assert "modelId" not in repo_info(artifact_of(repo=RepoId("hf", "dataset", "org/tiny")), ABOUT)


def test_the_oldest_names_have_no_author() -> None:
    assert ModelInfo(**repo_info(artifact_of(repo=RepoId("hf", "model", "gpt2")), ABOUT)).author is None


def test_an_id_is_24_hex_digits_and_its_own_for_each_kind() -> None:
    kinds = ("model", "dataset", "space")
    ids = {repo_info(artifact_of(repo=RepoId("hf", kind, "org/tiny")), About())["_id"] for kind in kinds}
    assert len(ids) == 3
    assert all(len(bytes.fromhex(each)) == 12 for each in ids)


def test_files_are_told_by_name_alone_unless_blobs_are_asked() -> None:
    assert repo_info(artifact_of(), ABOUT)["siblings"][1] == {"rfilename": "config.json"}


def test_blobs_tell_size_and_digest_of_a_git_file() -> None:
    files = {each.rfilename: each for each in ModelInfo(**repo_info(artifact_of(), ABOUT, blobs=True)).siblings or []}
    told = (files["config.json"].size, files["config.json"].blob_id, files["config.json"].lfs)
    assert told == (2, digest_bytes("git-sha1", b"{}").hex, None)


def test_blobs_tell_the_pointer_of_an_lfs_file() -> None:
    files = {each.rfilename: each for each in ModelInfo(**repo_info(artifact_of(), ABOUT, blobs=True)).siblings or []}
    lfs = files["model.safetensors"].lfs
    assert lfs is not None
    sha256 = digest_bytes("sha256", b"weights").hex
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 7\n".encode()
    told = (files["model.safetensors"].blob_id, lfs.sha256, lfs.size, lfs.pointer_size)
    assert told == (digest_bytes("git-sha1", pointer).hex, sha256, 7, len(pointer))


def test_an_lfs_file_without_a_pointer_has_it_computed() -> None:
    whole = artifact_of()
    bare = replace(
        whole, manifest=Manifest({path: replace(each, pointer=None) for path, each in whole.manifest.files.items()})
    )
    assert tree(bare, ABOUT, recursive=True) == tree(whole, ABOUT, recursive=True)
    assert repo_info(bare, ABOUT, blobs=True) == repo_info(whole, ABOUT, blobs=True)


def test_no_answer_mentions_xet() -> None:
    entry = replace(entry_of("model.safetensors", b"weights"), xet="ab" * 32)
    artifact = replace(artifact_of(), manifest=Manifest({RepoPath("model.safetensors"): entry}))
    answers = [
        repo_info(artifact, ABOUT, blobs=True),
        tree(artifact, ABOUT, recursive=True, expand=True),
        paths_info(artifact, ABOUT, ["model.safetensors"], expand=True),
    ]
    assert "xet" not in json.dumps(answers).lower()


def test_expand_answers_the_named_fields_and_the_ids() -> None:
    row = repo_info(artifact_of(), ABOUT, expand=["sha", "likes", "no-such-field"])
    assert set(row) == {"_id", "id", "sha", "likes"}


def test_every_field_that_the_client_may_expand_is_read() -> None:
    row = repo_info(artifact_of(), ABOUT, expand=get_args(ExpandModelProperty_T))
    assert ModelInfo(**row).sha == COMMIT


def test_a_space_has_no_fields_of_a_model() -> None:
    row = repo_info(artifact_of(repo=RepoId("hf", "space", "org/demo")), ABOUT, expand=["pipeline_tag", "sdk"])
    assert set(row) == {"_id", "id", "sdk"}


def test_the_storage_of_a_partial_repo_is_not_told() -> None:
    assert repo_info(artifact_of(), ABOUT)["usedStorage"] == sum(map(len, FILES.values()))
    assert "usedStorage" not in repo_info(replace(artifact_of(), is_whole=False), ABOUT)


def test_an_answer_is_plain_json() -> None:
    row = repo_info(artifact_of(), ABOUT, blobs=True)
    assert json.loads(json.dumps(row, allow_nan=False)) == row


@given(st.none() | st.floats())
def test_a_date_is_read_or_none(seconds: float | None) -> None:
    text = timestamp(seconds)
    assert text is None or ModelInfo(id="a", createdAt=text).created_at is not None


# Trees


def test_a_tree_lists_folders_first_then_files_by_path() -> None:
    assert listed() == ["sub", "README.md", "config.json", "model.safetensors", "sub.txt"]


def test_a_recursive_tree_lists_every_folder_and_file() -> None:
    folders, files = ["sub", "sub/deep"], ["README.md", "config.json", "model.safetensors"]
    assert listed(recursive=True) == [*folders, *files, "sub.txt", "sub/deep/n.txt", "sub/n.txt"]


def test_a_folder_lists_what_is_in_it() -> None:
    assert listed(folder="sub") == ["sub/deep", "sub/n.txt"]


def test_a_folder_may_be_listed_recursively() -> None:
    assert listed(folder="sub", recursive=True) == ["sub/deep", "sub/deep/n.txt", "sub/n.txt"]


def test_a_repo_without_files_has_an_empty_tree() -> None:
    assert listed({}) == []


@pytest.mark.parametrize("folder", ["su", "sub/", "config.json", "nowhere", "sub/deep/n.txt", "/"])
def test_what_is_no_folder_has_no_tree(folder: str) -> None:
    with pytest.raises(EntryNotFound):
        listed(folder=folder)


def test_the_client_reads_every_row() -> None:
    rows = tree(artifact_of(), ABOUT, recursive=True, expand=True)
    read = [RepoFile(**row) if row["type"] == "file" else RepoFolder(**row) for row in rows]
    assert {each.last_commit.oid for each in read if each.last_commit} == {COMMIT}
    assert all(each.last_commit and each.last_commit.date.timestamp() == MODIFIED for each in read)


def test_rows_have_no_last_commit_unless_asked() -> None:
    assert not any("lastCommit" in row for row in tree(artifact_of(), ABOUT, recursive=True))


def test_what_is_listed_is_read_back_as_the_same_files() -> None:
    assert parse_tree(tree(artifact_of(), ABOUT, recursive=True)) == dict(artifact_of().manifest.files)


def test_git_names_the_folders_alike(tmp_path: Path) -> None:
    def git(*args: str, text: str = "") -> str:
        return subprocess.run(
            ["git", *args], cwd=tmp_path, input=text, check=True, capture_output=True, text=True, timeout=60
        ).stdout.strip()

    git("init", "-q", "--bare", ".")
    files = {path: git("hash-object", "-w", "--stdin", text=FILES[path].decode()) for path in FILES}
    deep = git("mktree", text=f"100644 blob {files['sub/deep/n.txt']}\tn.txt\n")
    sub = git("mktree", text=f"040000 tree {deep}\tdeep\n100644 blob {files['sub/n.txt']}\tn.txt\n")
    rows = tree(artifact_of(), ABOUT, recursive=True)
    assert {row["path"]: row["oid"] for row in rows if row["type"] == "directory"} == {"sub": sub, "sub/deep": deep}


def test_ten_thousand_files_are_listed_at_once() -> None:
    files = {f"data/{number % 100:02}/{number}.txt": b"" for number in range(10_000)}
    artifact = artifact_of(files)
    before = process_time()
    rows = tree(artifact, ABOUT, recursive=True)
    spent = process_time() - before
    assert len(rows) == 10_101
    assert spent < 0.5  # 0.03 s on an idle machine


# Paths


def test_paths_are_answered_in_the_order_asked_and_missing_ones_left_out() -> None:
    rows = paths_info(artifact_of(), ABOUT, ["sub/n.txt", "nowhere", "sub", "README.md", ""])
    assert [(row["type"], row["path"]) for row in rows] == [
        ("file", "sub/n.txt"),
        ("directory", "sub"),
        ("file", "README.md"),
    ]


def test_a_path_is_answered_as_the_tree_lists_it() -> None:
    rows = tree(artifact_of(), ABOUT, recursive=True, expand=True)
    assert paths_info(artifact_of(), ABOUT, [row["path"] for row in rows], expand=True) == rows


def test_a_path_named_twice_is_answered_once() -> None:
    assert len(paths_info(artifact_of(), ABOUT, ["sub", "sub/", "sub"])) == 1


@pytest.mark.parametrize("expand", [True, False])
def test_the_clients_form_is_read(expand: bool) -> None:
    asked: list[tuple[list[str], bool]] = []

    def answer(request: Request) -> Any:
        asked.append(parse_paths(request.headers["content-type"], request.body))
        return paths_info(artifact_of(), ABOUT, asked[0][0], expand=asked[0][1])

    with answering(answer) as api:
        found = api.get_paths_info("org/tiny", ["sub", "ä b&c", "README.md"], expand=expand)
    assert asked == [(["sub", "ä b&c", "README.md"], expand)]
    assert [each.path for each in found] == ["sub", "README.md"]


@pytest.mark.parametrize(("text", "expand"), [(',"expand":true', True), (',"expand":false', False), ("", False)])
def test_json_is_read_as_javascript_sends_it(text: str, expand: bool) -> None:
    assert parse_paths("application/json; charset=utf-8", f'{{"paths":["a","b"]{text}}}'.encode()) == (
        ["a", "b"],
        expand,
    )


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b""),
        ("application/json", b"[]"),
        ("application/json", b"null"),
        ("application/json", b'{"paths": 3}'),
        ("application/json", b'{"paths": [3]}'),
        ("application/json", b'{"paths": {"a": 1}}'),
        ("application/json", b"[" * 100_000),
        ("application/json", b"\xff"),
        ("application/x-www-form-urlencoded", b""),
        ("application/x-www-form-urlencoded", b"path=a"),
        ("application/x-www-form-urlencoded", b"paths=%ff"),
        ("application/x-www-form-urlencoded", b"\xff=1"),
        ("application/x-www-form-urlencoded", b"paths=a&" * 20_000),
    ],
)
def test_nonsense_is_no_list_of_paths(content_type: str, body: bytes) -> None:
    with pytest.raises(BadReference):
        parse_paths(content_type, body)


def test_ten_thousand_paths_are_the_most() -> None:
    paths = [f"{number}" for number in range(MOST_PATHS)]
    assert len(parse_paths("", urlencode({"paths": paths, "expand": "false"}, doseq=True).encode())[0]) == MOST_PATHS
    with pytest.raises(BadReference, match="the most"):
        parse_paths("json", json.dumps({"paths": [*paths, "one more"]}).encode())


@given(st.sampled_from(["application/json", ""]), st.binary(max_size=200))
def test_any_body_is_read_or_refused(content_type: str, body: bytes) -> None:
    try:
        paths, _ = parse_paths(content_type, body)
    except BadReference:
        return
    assert all(isinstance(path, str) for path in paths)
    assert paths_info(artifact_of(), ABOUT, paths) is not None


# Refs and commits

KNOWN = {
    "main": COMMIT,
    "feature/x": "b" * 40,
    "v1.0": "c" * 40,
    "2.0.1-rc1": "d" * 40,
    "refs/pr/1": "e" * 40,
    "refs/convert/parquet": "f" * 40,
    "3adcfc60": COMMIT,
    "refs/tags/old": "1" * 40,
    "refs/heads/next": "2" * 40,
    "refs/stash": "3" * 40,
}


def test_the_client_reads_refs() -> None:
    with answering(lambda request: refs(KNOWN)) as api:
        found = api.list_repo_refs("org/tiny")
    assert [(each.name, each.ref) for each in found.branches] == [
        ("feature/x", "refs/heads/feature/x"),
        ("main", "refs/heads/main"),
        ("next", "refs/heads/next"),
    ]
    assert found.pull_requests is None


def test_the_client_reads_pull_requests() -> None:
    with answering(lambda request: refs(KNOWN, include_prs="include_prs" in request.query)) as api:
        found = api.list_repo_refs("org/tiny", include_pull_requests=True)
    assert [(each.ref, each.target_commit) for each in found.pull_requests or ()] == [("refs/pr/1", "e" * 40)]


def test_what_looks_like_a_version_is_a_tag() -> None:
    assert [row["ref"] for row in refs(KNOWN)["tags"]] == ["refs/tags/2.0.1-rc1", "refs/tags/old", "refs/tags/v1.0"]


@pytest.mark.parametrize("name", ["main", "v", "release", "2024", "1", "v1.0/x", "v1.0-", "fp16", "onnx.v1"])
def test_other_names_are_branches(name: str) -> None:
    assert [row["name"] for row in refs({name: COMMIT})["branches"]] == [name]


def test_a_conversion_is_named_by_its_last_part() -> None:
    [row] = refs(KNOWN)["converts"]
    assert row == {"name": "parquet", "ref": "refs/convert/parquet", "targetCommit": "f" * 40}


def test_a_short_commit_is_no_ref() -> None:
    assert "3adcfc60" not in json.dumps([row["name"] for rows in refs(KNOWN).values() for row in rows])


@pytest.mark.parametrize("formatted", [True, False])
def test_the_client_reads_the_commit(formatted: bool) -> None:
    with answering(lambda request: commits(artifact_of(), ABOUT, formatted="expand[]" in request.query)) as api:
        [found] = api.list_repo_commits("org/tiny", formatted=formatted)
    assert (found.commit_id, found.created_at.timestamp()) == (COMMIT, MODIFIED)
    assert (found.formatted_title is not None) == formatted


def test_a_commit_without_a_date_is_read_alike() -> None:
    with answering(lambda request: commits(artifact_of(), About())) as api:
        [found] = api.list_repo_commits("org/tiny")
    assert found.created_at.timestamp() == 0


def test_a_file_that_is_also_a_folder_has_no_tree() -> None:
    entry = Entry(Blob(digest_bytes("git-sha1", b""), 0))
    artifact = replace(artifact_of(), manifest=Manifest({RepoPath("a"): entry, RepoPath("a/b"): entry}))
    with pytest.raises(BadReference):
        tree(artifact, ABOUT)
