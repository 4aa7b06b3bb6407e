"""Archives and single files from an object store on loopback and from this machine, pulled by the real command."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hubcache.core.ids import parse
from hubcache.core.urls import ARCHIVE_SUFFIXES
from hubcache.mirrors.config import load
from tests.support.archives import END, file, pack, zipped
from tests.support.commandline import CommandLine, files_of
from tests.support.httpd import Origin as Server
from tests.support.httpd import Reply
from tests.support.objectstore import ObjectStore

FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": random.Random(1).randbytes(40_000),
    "sub/vocab.txt": b"one\ntwo\n",
    "empty.txt": b"",
}
WRAPPED = {f"model-v1/{path}": content for path, content in FILES.items()}
REPO = "127-0-0-1/model"
LARGE = {"model.safetensors": random.Random(2).randbytes(20 << 20), "config.json": b"{}"}


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with ObjectStore({"a/model.tar.gz": pack(FILES, ".tar.gz"), "weights.bin": FILES["model.safetensors"]}) as found:
        yield found


@pytest.fixture
def hubcache(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


def pulled(hubcache: CommandLine, *arguments: str | Path, **environ: str) -> dict[str, Any]:
    """Pull one reference and return the facts."""
    ran = hubcache("pull", "--json", *arguments, **environ)
    assert ran.code == 0, ran.err
    facts: dict[str, Any] = ran.facts
    return facts


def repos(hubcache: CommandLine) -> list[str]:
    return sorted(path.name for path in hubcache.cache.glob("models--*"))


# -- the same content is the same commit


@pytest.fixture(scope="module")
def every_suffix(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The same files in every kind of archive, from a store and from a folder, by one command."""
    folder = tmp_path_factory.mktemp("archives")
    archives = {f"model-{number}{suffix}": pack(FILES, suffix) for number, suffix in enumerate(ARCHIVE_SUFFIXES)}
    for name, content in archives.items():
        folder.joinpath(name).write_bytes(content)
    with ObjectStore(archives) as store:
        references = [reference for name in archives for reference in (store.url(name), str(folder / name))]
        ran = CommandLine(tmp_path_factory.mktemp("cache"))("pull", "--json", *references)
    assert ran.code == 0, ran.err
    return dict(zip(references, map(json.loads, ran.out.splitlines()), strict=True))


@pytest.mark.parametrize("suffix", ARCHIVE_SUFFIXES)
def test_an_archive_is_the_same_commit_from_a_store_and_from_a_path_whatever_its_suffix(
    every_suffix: dict[str, dict[str, Any]], suffix: str
) -> None:
    commits = [
        facts["commit"]
        for reference, facts in every_suffix.items()
        if any(reference.endswith(f"model-{number}{suffix}") for number in range(len(ARCHIVE_SUFFIXES)))
    ]
    assert len(commits) == 2
    assert set(commits) == {next(iter(every_suffix.values()))["commit"]}


def test_every_file_of_every_archive_is_as_it_was_packed(every_suffix: dict[str, dict[str, Any]]) -> None:
    assert all(files_of(Path(facts["path"])) == FILES for facts in every_suffix.values())


def test_the_folder_that_wraps_everything_is_taken_off(hubcache: CommandLine, store: ObjectStore) -> None:
    store.put("b/model.tar.gz", pack(WRAPPED, ".tar.gz"))
    commits = {pulled(hubcache, store.url(f"{folder}/model.tar.gz"))["commit"] for folder in "ab"}
    assert len(commits) == 1


def test_a_folder_beside_other_files_stays(hubcache: CommandLine, store: ObjectStore) -> None:
    store.put("b/model.tar.gz", pack(WRAPPED | {"LICENSE": b"free"}, ".tar.gz"))
    found = files_of(Path(pulled(hubcache, store.url("b/model.tar.gz"))["path"]))
    assert set(found) == {*WRAPPED, "LICENSE"}


def test_a_url_is_kept_under_its_bucket_and_its_stem(hubcache: CommandLine, store: ObjectStore) -> None:
    assert pulled(hubcache, store.url("a/model.tar.gz"))["repo"] == REPO


def test_a_url_is_kept_under_the_name_that_was_asked_for(hubcache: CommandLine, store: ObjectStore) -> None:
    facts = pulled(hubcache, store.url("a/model.tar.gz"), "--as", "org/name")
    assert (facts["repo"], hubcache.ref("org/name")) == ("org/name", facts["commit"])


def test_what_was_published_is_under_both_refs(hubcache: CommandLine, store: ObjectStore) -> None:
    commit = pulled(hubcache, store.url("a/model.tar.gz"))["commit"]
    assert {hubcache.ref(REPO, ref) for ref in ("main", "original")} == {commit}


def test_a_large_archive_comes_in_ranges(hubcache: CommandLine, store: ObjectStore) -> None:
    store.put("large/model.tar", pack(LARGE, ".tar"))
    facts = pulled(hubcache, store.url("large/model.tar"))
    assert files_of(Path(facts["path"])) == LARGE
    assert all("range" in request.headers for request in store.requests)


# -- single files


def test_a_url_of_no_archive_is_one_file(hubcache: CommandLine, store: ObjectStore) -> None:
    facts = pulled(hubcache, store.url("weights.bin"))
    assert files_of(Path(facts["path"])) == {"weights.bin": FILES["model.safetensors"]}


def test_a_file_has_its_decoded_name(hubcache: CommandLine, store: ObjectStore) -> None:
    store.put("my vocab.txt", b"one")
    assert set(files_of(Path(pulled(hubcache, store.url("my%20vocab.txt"))["path"]))) == {"my vocab.txt"}


@pytest.mark.parametrize("path", ["a/model.tar.gz", "weights.bin"])
def test_a_right_sha256_is_accepted(hubcache: CommandLine, store: ObjectStore, path: str) -> None:
    content = FILES["model.safetensors"] if path == "weights.bin" else pack(FILES, ".tar.gz")
    store.put(path, content)
    assert pulled(hubcache, f"{store.url(path)}#sha256={hashlib.sha256(content).hexdigest()}")["commit"]


@pytest.mark.parametrize("path", ["a/model.tar.gz", "weights.bin"])
def test_a_wrong_sha256_leaves_nothing(hubcache: CommandLine, store: ObjectStore, path: str) -> None:
    ran = hubcache("pull", f"{store.url(path)}#sha256={'0' * 64}")
    assert (ran.code, "has the sha256" in ran.err, repos(hubcache)) == (6, True, [])


def test_a_sha256_is_checked_also_where_the_url_was_pulled_without(hubcache: CommandLine, store: ObjectStore) -> None:
    pulled(hubcache, store.url("weights.bin"))
    assert hubcache("pull", f"{store.url('weights.bin')}#sha256={'0' * 64}").code == 6


# -- warm, changed, gone


def test_an_unchanged_url_costs_one_request_for_one_byte(hubcache: CommandLine, store: ObjectStore) -> None:
    first = pulled(hubcache, store.url("a/model.tar.gz"))
    store.clear()
    second = pulled(hubcache, store.url("a/model.tar.gz"))
    assert (second["commit"], second["transferred_size"]) == (first["commit"], 0)
    assert [request.headers.get("range") for request in store.requests] == ["bytes=0-0"]


def test_changed_content_at_the_same_url_is_a_new_commit(hubcache: CommandLine, store: ObjectStore) -> None:
    first = pulled(hubcache, store.url("a/model.tar.gz"))
    store.put("a/model.tar.gz", pack(FILES | {"config.json": b"{}"}, ".tar.gz"))
    second = pulled(hubcache, store.url("a/model.tar.gz"))
    assert first["commit"] != second["commit"]
    assert hubcache.ref(REPO) == second["commit"]
    assert files_of(Path(first["path"])) == FILES


def test_the_same_content_packed_anew_is_the_same_commit(hubcache: CommandLine, store: ObjectStore) -> None:
    first = pulled(hubcache, store.url("a/model.tar.gz"))
    store.put("a/model.tar.gz", pack(WRAPPED, ".tar.gz"))
    assert pulled(hubcache, store.url("a/model.tar.gz"))["commit"] == first["commit"]


def test_a_url_that_is_gone_does_not_exist(hubcache: CommandLine, store: ObjectStore) -> None:
    ran = hubcache("pull", store.url("none.tar.gz"))
    assert (ran.code, repos(hubcache)) == (4, [])


def test_with_the_store_down_what_was_pulled_is_found(hubcache: CommandLine, store: ObjectStore) -> None:
    first = pulled(hubcache, store.url("a/model.tar.gz"))
    store.stop()
    assert pulled(hubcache, store.url("a/model.tar.gz"))["path"] == first["path"]


def test_with_the_network_off_what_was_pulled_is_found(hubcache: CommandLine, store: ObjectStore) -> None:
    first = pulled(hubcache, store.url("a/model.tar.gz"))
    store.clear()
    assert pulled(hubcache, store.url("a/model.tar.gz"), HF_HUB_OFFLINE="1")["path"] == first["path"]
    assert store.requests == []


def test_a_changed_archive_on_this_machine_is_a_new_commit(hubcache: CommandLine, tmp_path: Path) -> None:
    archive = tmp_path / "model.zip"
    commits = set()
    for content in (FILES, LARGE):
        archive.write_bytes(pack(content, ".zip"))
        commits.add(pulled(hubcache, archive)["commit"])
    assert len(commits) == 2


# -- servers with less to offer


@pytest.mark.parametrize("content", [FILES, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
@pytest.mark.parametrize("lack", ["no_length", "ignore_ranges", "both"])
def test_a_server_without_lengths_or_ranges_will_do(
    hubcache: CommandLine, store: ObjectStore, lack: str, suffix: str, content: dict[str, bytes]
) -> None:
    store.no_length, store.ignore_ranges = lack != "ignore_ranges", lack != "no_length"
    store.put(f"b/model{suffix}", pack(content, suffix))
    assert files_of(Path(pulled(hubcache, store.url(f"b/model{suffix}"))["path"])) == content


def test_a_server_that_is_busy_at_first_is_asked_again(hubcache: CommandLine, store: ObjectStore) -> None:
    store.fail_next = [503]
    assert pulled(hubcache, store.url("a/model.tar.gz"))["repo"] == REPO


def test_a_transfer_that_is_cut_again_and_again_goes_on_each_time(hubcache: CommandLine, store: ObjectStore) -> None:
    store.truncate["a/model.tar.gz"] = 5_000
    assert files_of(Path(pulled(hubcache, store.url("a/model.tar.gz"))["path"])) == FILES


def test_content_without_a_validator_is_fetched_each_time(hubcache: CommandLine) -> None:
    asked = []
    server = Server(lambda request: asked.append(request) or Reply(200, {}, pack(FILES, ".tar")))  # type: ignore[func-returns-value]
    server.start()
    commits = [pulled(hubcache, f"{server.url}/model.tar")["commit"] for _ in range(2)]
    server.stop()
    assert (commits[0] == commits[1], len(asked) > 2) == (True, True)


# -- archives that may not be unpacked

HOSTILE = {
    "../evil": (file(b"config.json", b"{}") + file(b"../evil", b"x") + END, ".tar"),
    "/tmp/evil": (file(b"/tmp/evil", b"x") + END, ".tar"),
    "a/../../evil": (zipped("config.json", "a/../../evil"), ".zip"),
}


@pytest.mark.parametrize("member", HOSTILE)
@pytest.mark.parametrize("place", ["store", "path"])
def test_a_hostile_archive_is_refused_by_the_members_name_and_leaves_nothing(
    hubcache: CommandLine, store: ObjectStore, tmp_path: Path, member: str, place: str
) -> None:
    content, suffix = HOSTILE[member]
    local = tmp_path / f"hostile{suffix}"
    local.write_bytes(content)
    store.put(f"hostile{suffix}", content)
    ran = hubcache("pull", local if place == "path" else store.url(f"hostile{suffix}"))
    assert (ran.code, repr(member) in ran.err, repos(hubcache)) == (6, True, [])
    assert list(tmp_path.rglob("evil")) == []


def test_a_hostile_archive_is_refused_while_it_still_arrives(hubcache: CommandLine, store: ObjectStore) -> None:
    store.put("hostile.tar", file(b"../evil", b"x") + bytes(30 << 20))
    store.rate = 4 << 20
    ran = hubcache("pull", store.url("hostile.tar"), timeout=5)
    assert (ran.code, "thread" in ran.err.lower()) == (6, False)


def test_an_archive_that_is_none_leaves_nothing(hubcache: CommandLine, store: ObjectStore) -> None:
    store.put("model.tar.gz", b"<html>Please log in</html>")
    ran = hubcache("pull", store.url("model.tar.gz"))
    assert (ran.code, repos(hubcache)) == (6, [])


def test_after_a_refused_archive_the_cache_is_whole(hubcache: CommandLine, store: ObjectStore) -> None:
    first = pulled(hubcache, store.url("a/model.tar.gz"))
    store.put("a/model.tar.gz", HOSTILE["../evil"][0])
    assert hubcache("pull", store.url("a/model.tar.gz")).code == 6
    assert (hubcache.ref(REPO), files_of(Path(first["path"]))) == (first["commit"], FILES)


# -- looking before pulling


def test_a_dry_run_asks_for_one_byte_and_keeps_nothing(hubcache: CommandLine, store: ObjectStore) -> None:
    facts = pulled(hubcache, "--dry-run", store.url("a/model.tar.gz"))
    assert [request.headers["range"] for request in store.requests] == ["bytes=0-0"]
    assert (facts["missing_size"], repos(hubcache)) == (len(pack(FILES, ".tar.gz")), [])


def test_a_dry_run_of_what_is_here_has_nothing_to_transfer(hubcache: CommandLine, store: ObjectStore) -> None:
    commit = pulled(hubcache, store.url("a/model.tar.gz"))["commit"]
    facts = pulled(hubcache, "--dry-run", store.url("a/model.tar.gz"))
    assert (facts["commit"], facts["missing_size"]) == (commit, 0)


ALICE = "https://alice-open.oss-cn-zhangjiakou.aliyuncs.com"


@pytest.mark.parametrize(
    ("name", "path", "repo"),
    [
        ("structbert.en.large", "/StructBERT/english_sbert-large-std-512.tar.gz", "english_sbert-large-std-512"),
        ("structbert.ch.large", "/StructBERT/chinese_sbert-large-std-512.tar.gz", "chinese_sbert-large-std-512"),
        ("palm.ch.base", "/PALM/chinese-palm-base.tar.gz", "chinese-palm-base"),
        ("veco.nlu.large", "/VECO/NLU/model/xtreme-released-veco.tar.gz", "xtreme-released-veco"),
        ("veco.nlg.large", "/VECO/NLG/model/veco-large.tar.gz", "veco-large"),
    ],
)
def test_a_catalogue_name_is_the_published_address(name: str, path: str, repo: str) -> None:
    reference = parse(name, catalogue=load([]).catalogue)
    assert (reference.scheme, reference.address, reference.repo.name) == ("http", ALICE + path, f"alice-open/{repo}")
