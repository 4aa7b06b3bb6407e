"""The loopback servers of tests/support answer as what they stand for, and each of their faults does what it says."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.support.faultproxy import Fault, FaultProxy
from tests.support.loophub import LoopHub
from tests.support.loopzoo import LoopZoo
from tests.support.objectstore import ObjectStore

WEIGHTS = bytes(range(256)) * 8192  # 2 MiB
SMALL = {f"sub/d{n % 3}/f{n}.txt": f"file {n}".encode() for n in range(12)}
FILES = {**SMALL, "config.json": b'{"model_type": "bert"}', "empty.txt": b"", "model.safetensors": WEIGHTS}
STUB = "zoo:nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/pruned90_quant-none"
ROOT = Path(__file__).parents[1]

CLIENT = """
import json, sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
calls = {
    "snapshot": lambda: snapshot_download("org/paged"),
    "renamed": lambda: snapshot_download("org/old"),
    "gated": lambda: hf_hub_download("org/gated", "config.json"),
    "anonymous": lambda: hf_hub_download("org/gated", "config.json", token=False),
    "granted": lambda: hf_hub_download("org/gated", "config.json", token="granted"),
    "revision": lambda: snapshot_download("org/paged", revision="nowhere"),
    "file": lambda: hf_hub_download("org/paged", "nothing.txt"),
    "repo": lambda: snapshot_download("org/nothing"),
    "private": lambda: snapshot_download("org/private"),
    "pull_request": lambda: HfApi().model_info("org/paged", revision="refs/pr/1").sha,
    "branches": lambda: [ref.name for ref in HfApi().list_repo_refs("org/paged").branches],
    "sizes": lambda: {f.rfilename: f.size for f in HfApi().model_info("org/paged", files_metadata=True).siblings},
    "paths": lambda: [entry.path for entry in HfApi().get_paths_info("org/paged", ["sub", "config.json", "no"])],
    "dataset": lambda: hf_hub_download("org/rows", "rows.csv", repo_type="dataset"),
    "whoami": lambda: HfApi().whoami()["name"],
}
def outcome(call):
    try:
        return call()
    except Exception as error:
        return type(error).__name__
print(json.dumps({name: outcome(call) for name, call in calls.items()}))
"""


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(url: str, method: str = "GET", body: str | None = None, /, **headers: str) -> Answer:
    """Send one request on a connection of its own; redirects are not followed."""
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.netloc, timeout=10)) as connection:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def ask_json(url: str) -> Any:
    return json.loads(ask(url).body)


def graphql(zoo: LoopZoo, query: str) -> Any:
    return json.loads(ask(f"{zoo.endpoint}/v2/graphql", "POST", json.dumps({"query": query})).body)


def git(*arguments: str, folder: Path | None = None, stdin: bytes = b"") -> str:
    return subprocess.run(["git", *arguments], cwd=folder, input=stdin, capture_output=True, check=True).stdout.decode()


@dataclass
class Run:
    """What huggingface_hub returned or raised, and what the hub saw."""

    hub: LoopHub
    home: Path
    commit: str
    result: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run the real client once over everything it is asked here."""
    home = tmp_path_factory.mktemp("hf")
    with LoopHub() as hub:
        hub.page_size = 5
        commit = hub.add_repo("org/paged", FILES)
        hub.set_ref("org/paged", "refs/pr/1", commit)
        hub.set_ref("org/paged", "dev", commit)
        hub.add_repo("org/old", {"a.txt": b"a"})
        hub.rename("org/old", "org/new")
        hub.add_repo("org/gated", FILES, gated=True, token="granted")
        hub.add_repo("org/private", FILES, private=True, token="granted")
        hub.add_repo("org/rows", {"rows.csv": b"a,b\n"}, kind="dataset")
        flags = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        env = {**os.environ, **flags, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_TOKEN": "somebody"}
        outcomes = subprocess.check_output([sys.executable, "-c", CLIENT], env=env, timeout=120)
        yield Run(hub, home, commit, json.loads(outcomes))


@pytest.fixture
def hub() -> Iterator[LoopHub]:
    with LoopHub() as hub:
        yield hub


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with ObjectStore({"bucket/x.bin": b"0123456789"}) as store:
        yield store


@pytest.fixture
def zoo() -> Iterator[LoopZoo]:
    with LoopZoo() as zoo:
        zoo.add_model(STUB, {"training/config.json": b"{}", "model.onnx": b"onnx"}, "obert-base-sst2-pruned90")
        yield zoo


# -- LoopHub under the real client


def test_the_real_client_downloads_every_page_of_a_repo(run: Run) -> None:
    folder = Path(run.result["snapshot"])
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES


def test_the_real_client_follows_the_links_between_tree_pages(run: Run) -> None:
    assert sum("cursor=" in logged.path for logged in run.hub.requests) == 3


def test_the_real_client_fetches_lfs_files_from_the_other_origin(run: Run) -> None:
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    assert any(logged.origin == "cdn" and digest in logged.path for logged in run.hub.requests)


def test_the_cdn_sees_no_authorization_of_the_real_client(run: Run) -> None:
    assert not [logged for logged in run.hub.requests if logged.origin == "cdn" and "authorization" in logged.headers]


def test_the_hub_sees_the_token_of_the_real_client(run: Run) -> None:
    assert any(logged.headers.get("authorization") == "Bearer somebody" for logged in run.hub.requests)


def test_the_real_client_names_lfs_blobs_by_the_linked_etag(run: Run) -> None:
    blob = (Path(run.result["snapshot"]) / "model.safetensors").resolve()
    assert blob.name == hashlib.sha256(WEIGHTS).hexdigest()


def test_the_real_client_finds_a_renamed_repo_under_its_old_name(run: Run) -> None:
    assert (Path(run.result["renamed"]) / "a.txt").read_bytes() == b"a"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("gated", "GatedRepoError"),
        ("anonymous", "GatedRepoError"),
        ("revision", "RevisionNotFoundError"),
        ("file", "RemoteEntryNotFoundError"),
        ("repo", "RepositoryNotFoundError"),
        ("private", "RepositoryNotFoundError"),
    ],
)
def test_the_real_client_raises_its_own_error_for_each_refusal(run: Run, call: str, error: str) -> None:
    assert run.result[call] == error


def test_the_real_client_opens_a_gated_repo_with_the_granted_token(run: Run) -> None:
    assert Path(run.result["granted"]).read_bytes() == FILES["config.json"]


def test_the_real_client_remembers_a_missing_file_of_a_known_commit(run: Run) -> None:
    assert (run.home / "hub" / "models--org--paged" / ".no_exist" / run.commit / "nothing.txt").exists()


def test_the_real_client_resolves_a_pull_request(run: Run) -> None:
    assert run.result["pull_request"] == run.commit


def test_the_real_client_lists_the_branches(run: Run) -> None:
    assert run.result["branches"] == ["dev", "main"]


def test_the_real_client_reads_sizes_with_the_repo_info(run: Run) -> None:
    assert run.result["sizes"] == {path: len(content) for path, content in FILES.items()}


def test_the_real_client_gets_paths_info_without_the_missing_paths(run: Run) -> None:
    assert run.result["paths"] == ["sub", "config.json"]


def test_the_real_client_downloads_from_a_dataset(run: Run) -> None:
    assert Path(run.result["dataset"]).read_bytes() == b"a,b\n"


def test_the_real_client_learns_who_it_is(run: Run) -> None:
    assert run.result["whoami"] == "loop"


# -- LoopHub on the wire


def rows(hub: LoopHub, name: str) -> dict[str, Any]:
    listed = ask_json(f"{hub.endpoint}/api/models/{name}/tree/main?recursive=true&expand=false")
    return {row["path"]: row for row in listed}


def test_git_agrees_with_the_oid_of_a_file(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    oid = git("hash-object", "--stdin", stdin=FILES["config.json"]).strip()
    assert rows(hub, "org/name")["config.json"]["oid"] == oid


def test_git_agrees_with_the_oid_of_an_lfs_pointer(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(WEIGHTS)}\n".encode()
    row = rows(hub, "org/name")["model.safetensors"]
    assert row == {
        "type": "file",
        "oid": git("hash-object", "--stdin", stdin=pointer).strip(),
        "size": len(WEIGHTS),
        "path": "model.safetensors",
        "lfs": {"oid": digest, "size": len(WEIGHTS), "pointerSize": len(pointer)},
    }


def test_git_agrees_with_the_oids_of_the_folders(hub: LoopHub, tmp_path: Path) -> None:
    hub.add_repo("org/name", SMALL | {"sub.txt": b"sorts before sub/", "sub0": b"sorts after"})
    for path, file in hub.files("org/name").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(file.body, bytes)
        (tmp_path / path).write_bytes(file.body)
    git("init", "-q", folder=tmp_path)
    git("-c", "core.autocrlf=false", "add", ".", folder=tmp_path)
    listed = git("ls-tree", "-r", "-d", git("write-tree", folder=tmp_path).strip(), folder=tmp_path).splitlines()
    theirs = {line.partition("\t")[2]: line.split()[2] for line in listed}
    assert {path: row["oid"] for path, row in rows(hub, "org/name").items() if row["type"] == "directory"} == theirs


def test_a_small_file_takes_a_relative_307_that_carries_the_commit(hub: LoopHub) -> None:
    commit = hub.add_repo("org/name", FILES)
    answer = ask(f"{hub.endpoint}/org/name/resolve/main/config.json", "HEAD")
    start = f"/api/resolve-cache/models/org/name/{commit}/config.json?"
    assert (answer.status, answer.headers["X-Repo-Commit"]) == (307, commit)
    assert answer.headers["Location"].startswith(start)


def test_the_resolve_cache_answers_with_etag_commit_and_length(hub: LoopHub) -> None:
    commit = hub.add_repo("org/name", FILES)
    answer = ask(f"{hub.endpoint}/api/resolve-cache/models/org/name/{commit}/config.json", "HEAD")
    oid = git("hash-object", "--stdin", stdin=FILES["config.json"]).strip()
    named = [answer.headers[name] for name in ("ETag", "X-Repo-Commit", "Content-Length", "Accept-Ranges")]
    assert (answer.status, named) == (200, [f'"{oid}"', commit, str(len(FILES["config.json"])), "bytes"])


def test_a_small_file_comes_at_once_where_asked(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    hub.small_via_307 = False
    answer = ask(f"{hub.endpoint}/org/name/resolve/main/config.json")
    assert (answer.status, answer.body) == (200, FILES["config.json"])


def lfs_location(hub: LoopHub) -> str:
    return str(ask(f"{hub.endpoint}/org/name/resolve/main/model.safetensors", "HEAD").headers["Location"])


def test_an_lfs_file_is_redirected_with_its_sha256_to_the_cdn(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    answer = ask(f"{hub.endpoint}/org/name/resolve/main/model.safetensors", "HEAD")
    linked = (answer.headers["X-Linked-Etag"], answer.headers["X-Linked-Size"])
    assert (answer.status, linked) == (302, (f'"{hashlib.sha256(WEIGHTS).hexdigest()}"', str(len(WEIGHTS))))
    assert answer.headers["Location"].startswith(f"{hub.cdn_endpoint}/")


def test_the_cdns_own_etag_is_not_the_sha256(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    assert hashlib.sha256(WEIGHTS).hexdigest() not in ask(lfs_location(hub), "HEAD").headers["ETag"]


def test_the_cdn_refuses_and_logs_a_request_with_authorization(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    answer = ask(lfs_location(hub), authorization="Bearer leaked")
    assert answer.status == 400
    assert hub.requests[-1].headers["authorization"] == "Bearer leaked"


def test_the_cdn_refuses_a_link_it_did_not_sign(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    assert ask(lfs_location(hub).replace("Signature=", "Signature=0")).status == 403


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "body"),
    [
        ("bytes=0-0", 206, "bytes 0-0/2097152", WEIGHTS[:1]),
        ("bytes=2097150-", 206, "bytes 2097150-2097151/2097152", WEIGHTS[-2:]),
        ("bytes=-3", 206, "bytes 2097149-2097151/2097152", WEIGHTS[-3:]),
        ("bytes=2097151-9999999", 206, "bytes 2097151-2097151/2097152", WEIGHTS[-1:]),
        ("bytes=2097152-", 416, "bytes */2097152", b""),
        ("lines=1-2", 200, None, WEIGHTS),
    ],
)
def test_ranges_are_answered_by_rfc_9110(
    hub: LoopHub, asked: str, status: int, content_range: str | None, body: bytes
) -> None:
    hub.add_repo("org/name", FILES)
    answer = ask(lfs_location(hub), range=asked)
    assert (answer.status, answer.headers["Content-Range"], answer.body) == (status, content_range, body)


def test_a_file_on_disk_comes_whole_by_sendfile(hub: LoopHub, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(WEIGHTS)
    hub.add_repo("org/name", {"model.safetensors": tmp_path / "model.bin"})
    assert ask(lfs_location(hub)).body == WEIGHTS


def test_a_range_of_a_file_on_disk_comes_by_sendfile(hub: LoopHub, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(WEIGHTS)
    hub.add_repo("org/name", {"model.safetensors": tmp_path / "model.bin"})
    assert ask(lfs_location(hub), range="bytes=5-1500000").body == WEIGHTS[5:1500001]


@pytest.mark.parametrize(
    "revision", ["main", "HEAD", "v1", "refs%2Fpr%2F1", "refs/pr/1", "feature/x", "feature%2Fx", "COMMIT", "SHORT"]
)
def test_every_form_of_a_revision_lists_the_same_folder(hub: LoopHub, revision: str) -> None:
    commit = hub.add_repo("org/name", FILES)
    for ref in ("refs/tags/v1", "refs/pr/1", "feature/x"):
        hub.set_ref("org/name", ref, commit)
    revision = revision.replace("COMMIT", commit).replace("SHORT", commit[:7])
    listed = ask_json(f"{hub.endpoint}/api/models/org/name/tree/{revision}/sub/d0")
    assert [row["path"] for row in listed] == sorted(path for path in FILES if path.startswith("sub/d0/"))


def test_an_old_commit_still_serves_its_own_files(hub: LoopHub) -> None:
    first = hub.add_repo("org/name", {"a.txt": b"one"})
    hub.add_commit("org/name", {"a.txt": b"two"})
    assert ask(f"{hub.endpoint}/api/resolve-cache/models/org/name/{first}/a.txt").body == b"one"


def test_a_commit_keeps_the_files_it_does_not_name(hub: LoopHub) -> None:
    hub.add_repo("org/name", {"a.txt": b"one", "b.txt": b"b", "c.txt": b"c"})
    hub.add_commit("org/name", {"a.txt": b"two", "c.txt": None})
    assert sorted(hub.files("org/name")) == ["a.txt", "b.txt"]


def test_the_same_content_gives_the_same_commit_on_every_hub(hub: LoopHub) -> None:
    with LoopHub() as other:
        assert hub.add_repo("org/name", FILES) == other.add_repo("org/name", FILES)


def test_a_missing_repo_answers_an_anonymous_401_without_a_code(hub: LoopHub) -> None:
    answer = ask(f"{hub.endpoint}/api/models/org/nothing")
    assert (answer.status, answer.headers["X-Error-Code"]) == (401, None)
    assert answer.headers["X-Error-Message"] == "Invalid username or password."


def test_a_private_repo_answers_a_foreign_token_as_a_missing_one(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES, private=True, token="mine")
    answers = [
        ask(f"{hub.endpoint}/api/models/org/{name}", authorization="Bearer other") for name in ("name", "nothing")
    ]
    assert [(answer.status, answer.body) for answer in answers] == [(404, answers[0].body)] * 2


def test_a_gated_repos_tree_stays_public(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES, gated="manual")
    assert ask(f"{hub.endpoint}/api/models/org/name/tree/main").status == 200


def test_a_renamed_repo_redirects_its_api_relatively(hub: LoopHub) -> None:
    hub.add_repo("org/old", FILES)
    hub.rename("org/old", "org/new")
    answer = ask(f"{hub.endpoint}/api/models/org/old/tree/main?recursive=true")
    assert (answer.status, answer.headers["Location"]) == (307, "/api/models/org/new/tree/main?recursive=true")


def test_another_letter_case_redirects_to_the_canonical_name(hub: LoopHub) -> None:
    hub.add_repo("Org/Name", FILES)
    answer = ask(f"{hub.endpoint}/org/name/resolve/main/config.json")
    assert (answer.status, answer.headers["Location"]) == (307, "/Org/Name/resolve/main/config.json")


def test_a_repo_may_have_a_name_of_one_part(hub: LoopHub) -> None:
    hub.add_repo("gpt2", {"a.txt": b"a"})
    assert ask(f"{hub.endpoint}/gpt2/resolve/main/a.txt").status == 307


def test_nothing_ever_advertises_xet(run: Run) -> None:
    answer = ask(f"{run.hub.endpoint}/org/paged/resolve/main/model.safetensors", "HEAD")
    assert not [name for name in answer.headers if "xet" in name.lower() or name.lower() == "link"]


def test_a_connection_is_kept_for_the_next_request(hub: LoopHub) -> None:
    with closing(http.client.HTTPConnection(urlsplit(hub.endpoint).netloc, timeout=10)) as connection:
        for _ in range(3):
            connection.request("GET", "/api/agent-harnesses")
            connection.getresponse().read()
    assert hub.connections == 1


def test_a_stopped_hub_refuses_connections() -> None:
    hub = LoopHub().start()
    hub.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(hub.endpoint)


def test_a_hub_comes_back_on_the_same_ports() -> None:
    hub = LoopHub().start()
    before = (hub.endpoint, hub.cdn_endpoint, ask(hub.endpoint).status)
    hub.stop()
    with hub:
        assert (hub.endpoint, hub.cdn_endpoint, ask(hub.endpoint).status) == before


def test_the_hub_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a")
    command = [sys.executable, "-m", "tests.support.loophub", "--dir", str(tmp_path), "--repo", "org/name"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            endpoint = process.stdout.readline().strip()
            assert ask_json(f"{endpoint}/api/models/org/name")["siblings"] == [{"rfilename": "a.txt"}]
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


# -- LoopHub's faults


def test_a_hub_that_is_down_answers_503_to_all(hub: LoopHub) -> None:
    hub.down = True
    assert [ask(url).status for url in (hub.endpoint, hub.cdn_endpoint)] == [503, 503]


def test_a_rate_limit_refuses_so_many_requests(hub: LoopHub) -> None:
    hub.rate_limit = 2
    assert [ask(f"{hub.endpoint}/api/agent-harnesses").status for _ in range(3)] == [429, 429, 200]


def test_a_rate_limit_says_when_to_come_back(hub: LoopHub) -> None:
    hub.rate_limit, hub.retry_after = 1, 1
    answer = ask(f"{hub.endpoint}/api/agent-harnesses")
    assert (answer.headers["Retry-After"], answer.headers["RateLimit"]) == ("1", '"resolvers";r=0;t=1')


def test_the_next_requests_fail_with_the_named_codes(hub: LoopHub) -> None:
    hub.fail_next = [500, 404]
    assert [ask(f"{hub.endpoint}/api/agent-harnesses").status for _ in range(3)] == [500, 404, 200]


def test_one_origin_can_fail_alone(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    hub.fail_origin["cdn"] = [403]
    assert [ask(lfs_location(hub)).status for _ in range(2)] == [403, 200]


def test_a_corrupt_file_differs_in_one_byte_and_keeps_its_size(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    hub.corrupt.add("model.safetensors")
    body = ask(lfs_location(hub)).body
    assert (len(body), [n for n, byte in enumerate(body) if byte != WEIGHTS[n]]) == (len(WEIGHTS), [len(WEIGHTS) // 2])


def test_the_corrupt_byte_is_the_same_in_a_range(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    hub.corrupt.add("model.safetensors")
    middle = len(WEIGHTS) // 2
    assert ask(lfs_location(hub), range=f"bytes={middle}-{middle}").body == bytes([WEIGHTS[middle] ^ 0xFF])


def test_a_truncated_body_ends_after_so_many_bytes(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    hub.truncate["model.safetensors"] = 1000
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(lfs_location(hub))
    assert caught.value.partial == WEIGHTS[:1000]


def test_a_stalled_body_stays_silent_until_the_hub_stops() -> None:
    with LoopHub() as hub:
        hub.add_repo("org/name", FILES)
        hub.stall["model.safetensors"] = 1000
        parts = urlsplit(lfs_location(hub))
        connection = http.client.HTTPConnection(parts.netloc, timeout=10)
        connection.request("GET", f"{parts.path}?{parts.query}")
        response = connection.getresponse()
        began = response.read(1000)
        silent = not select.select([connection.sock], [], [], 0.1)[0]
    with pytest.raises(http.client.IncompleteRead), closing(connection):
        response.read()
    assert (began, silent) == (WEIGHTS[:1000], True)


def test_ignored_ranges_answer_the_whole_file(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    hub.ignore_ranges = True
    answer = ask(lfs_location(hub), range="bytes=5-9")
    assert (answer.status, answer.body) == (200, WEIGHTS)


def test_a_redirect_loop_leads_to_itself(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    hub.redirect_loop.add("config.json")
    answer = ask(f"{hub.endpoint}/org/name/resolve/main/config.json")
    assert (answer.status, answer.headers["Location"]) == (302, "/org/name/resolve/main/config.json")


def test_a_wrong_etag_is_well_formed_and_of_other_content(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    hub.wrong_etag = True
    answer = ask(f"{hub.endpoint}/org/name/resolve/main/model.safetensors", "HEAD")
    assert answer.headers["X-Linked-Etag"] == f'"{"f" * 64}"'


def test_the_commit_header_can_be_left_out(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    hub.no_commit_header = True
    assert "X-Repo-Commit" not in ask(f"{hub.endpoint}/org/name/resolve/main/config.json").headers


def test_a_delay_comes_before_each_answer(hub: LoopHub) -> None:
    hub.delay = 0.05
    began = monotonic()
    ask(f"{hub.endpoint}/api/agent-harnesses")
    assert monotonic() - began >= 0.05


def test_a_rate_holds_a_body_back(hub: LoopHub) -> None:
    hub.add_repo("org/name", FILES)
    hub.rate = 20 * len(WEIGHTS)
    began = monotonic()
    ask(lfs_location(hub))
    assert monotonic() - began >= 0.04


# -- LoopZoo

BY_STUB = (
    'domain: "nlp",task: "sentiment_analysis",architecture: "obert",subArchitecture: "base",framework: "pytorch",'
    'repo: "huggingface",sourceDataset: "sst2",sparseTag: "pruned90_quant-none",'
)


@pytest.mark.parametrize("arguments", [BY_STUB, 'repoName: "obert-base-sst2-pruned90",'])
def test_the_zoo_finds_a_model_by_either_question(zoo: LoopZoo, arguments: str) -> None:
    answer = graphql(zoo, f"{{ models ({arguments}) {{ stub }} }}")
    assert answer == {"data": {"models": [{"stub": STUB}]}}


def test_the_zoo_answers_no_model_for_an_unknown_name(zoo: LoopZoo) -> None:
    assert graphql(zoo, '{ models (repoName: "no") { modelId } }') == {"data": {"models": []}}


def test_the_zoo_answers_only_the_fields_the_query_names(zoo: LoopZoo) -> None:
    (model,) = graphql(zoo, "{ models { repoName files(version: 2) { displayName fileSize } } }")["data"]["models"]
    assert model == {
        "repoName": "obert-base-sst2-pruned90",
        "files": [
            {"displayName": "training/config.json", "fileSize": 2},
            {"displayName": "model.onnx", "fileSize": 4},
        ],
    }


def test_the_zoo_names_files_without_folders_where_no_version_is_asked(zoo: LoopZoo) -> None:
    (model,) = graphql(zoo, "{ models { files { displayName } } }")["data"]["models"]
    assert [file["displayName"] for file in model["files"]] == ["config.json", "model.onnx"]


def first_file(zoo: LoopZoo) -> Any:
    query = "{ models { files(version: 2) { downloadUrl fileSize md5 } } }"
    return graphql(zoo, query)["data"]["models"][0]["files"][0]


def test_the_zoo_serves_the_file_its_row_points_at(zoo: LoopZoo) -> None:
    row = first_file(zoo)
    assert hashlib.md5(ask(row["downloadUrl"]).body).hexdigest() == row["md5"]


def test_the_zoo_clamps_a_range_that_ends_past_the_file(zoo: LoopZoo) -> None:
    answer = ask(first_file(zoo)["downloadUrl"], range="bytes=0-2")
    assert (answer.status, answer.headers["Content-Range"]) == (206, "bytes 0-1/2")


def test_the_zoo_answers_a_head_for_an_unknown_file_without_a_length(zoo: LoopZoo) -> None:
    answer = ask(first_file(zoo)["downloadUrl"].replace("config", "other"), "HEAD")
    assert (answer.status, answer.headers["Content-Length"]) == (404, "0")


def test_the_zoo_can_reject_md5(zoo: LoopZoo) -> None:
    zoo.reject_md5 = True
    assert "errors" in graphql(zoo, "{ models { files(version: 2) { md5 } } }")


@pytest.mark.parametrize(
    "query", ["{ models { nothing } }", '{ models (colour: "red") { stub } }', "models", "{ models"]
)
def test_the_zoo_answers_errors_for_a_query_it_cannot_serve(zoo: LoopZoo, query: str) -> None:
    assert "errors" in graphql(zoo, query)


def test_the_zoo_can_lie_about_digest_and_size(zoo: LoopZoo) -> None:
    zoo.wrong_md5 = zoo.wrong_size = True
    row = first_file(zoo)
    assert (row["md5"], row["fileSize"]) == ("0" * 32, 3)


def test_the_zoo_loads_a_folder_of_rows_and_files(zoo: LoopZoo, tmp_path: Path) -> None:
    (row,) = zoo.rows()
    (tmp_path / "models.json").write_text(json.dumps({"models": [row]}))
    for file in row["files"]:
        path = tmp_path / "files" / row["modelId"] / file["displayName"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"on disk")
    with LoopZoo(tmp_path) as loaded:
        assert ask(first_file(loaded)["downloadUrl"]).body == b"on disk"


# -- ObjectStore


def test_the_store_answers_with_its_validators(store: ObjectStore) -> None:
    answer = ask(store.url("bucket/x.bin"), "HEAD")
    assert answer.headers["ETag"] == f'"{hashlib.md5(b"0123456789").hexdigest()}"'
    assert {"Last-Modified", "Accept-Ranges"} <= set(answer.headers)


def test_the_store_answers_304_to_the_etag_it_gave(store: ObjectStore) -> None:
    etag = ask(store.url("bucket/x.bin"), "HEAD").headers["ETag"]
    assert ask(store.url("bucket/x.bin"), if_none_match=f'"other", {etag}').status == 304


def test_the_store_answers_a_range_under_a_matching_if_range(store: ObjectStore) -> None:
    etag = ask(store.url("bucket/x.bin"), "HEAD").headers["ETag"]
    assert ask(store.url("bucket/x.bin"), range="bytes=7-", if_range=etag).body == b"789"


def test_the_store_answers_the_whole_file_when_if_range_no_longer_matches(store: ObjectStore) -> None:
    etag = ask(store.url("bucket/x.bin"), "HEAD").headers["ETag"]
    store.put("bucket/x.bin", b"changed")
    answer = ask(store.url("bucket/x.bin"), range="bytes=5-", if_range=etag)
    assert (answer.status, answer.body) == (200, b"changed")


def test_the_store_answers_a_missing_key_in_xml(store: ObjectStore) -> None:
    answer = ask(store.url("bucket/none"))
    assert (answer.status, b"<Code>NoSuchKey</Code>" in answer.body) == (404, True)


def test_the_store_can_send_chunks_without_a_length(store: ObjectStore) -> None:
    store.no_length = True
    answer = ask(store.url("bucket/x.bin"))
    assert (answer.headers["Content-Length"], answer.body) == (None, b"0123456789")


def test_the_store_can_send_nothing_in_chunks(store: ObjectStore) -> None:
    store.no_length = True
    store.put("empty", b"")
    assert ask(store.url("empty")).body == b""


def test_a_query_does_not_change_what_the_store_serves(store: ObjectStore) -> None:
    assert ask(f"{store.url('bucket/x.bin')}?{urlencode({'X-Amz-Signature': 'f00'})}").body == b"0123456789"


# -- FaultProxy


@pytest.fixture
def proxy(store: ObjectStore) -> Iterator[FaultProxy]:
    store.put("big", WEIGHTS)
    with FaultProxy(urlsplit(store.endpoint).port or 0) as proxy:
        yield proxy


def received(proxy: FaultProxy, timeout: float = 10) -> tuple[bytes, type[Exception] | None]:
    """Ask for the big file in plain HTTP/1.1: every byte that came and how the connection ended."""
    came = bytearray()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout) as connection:
        connection.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        try:
            while piece := connection.recv(65536):
                came += piece
        except OSError as error:
            return bytes(came), type(error)
    return bytes(came), None


def test_without_a_fault_the_proxy_passes_everything(proxy: FaultProxy) -> None:
    assert ask(f"{proxy.url}/big").body == WEIGHTS


def test_the_proxy_counts_connections_and_bytes(proxy: FaultProxy) -> None:
    came, _ = received(proxy)
    assert (proxy.connections, proxy.bytes_down) == (1, len(came))


def test_a_reset_arrives_as_rst_after_so_many_bytes(proxy: FaultProxy) -> None:
    proxy.fault = Fault(reset_after=5000)
    came, ended = received(proxy)
    assert (len(came), ended) == (5000, ConnectionResetError)


def test_a_truncation_arrives_as_an_incomplete_body(proxy: FaultProxy) -> None:
    proxy.fault = Fault(truncate_after=5000)
    with pytest.raises(http.client.IncompleteRead):
        ask(f"{proxy.url}/big")


def test_a_truncation_ends_in_order_after_so_many_bytes(proxy: FaultProxy) -> None:
    proxy.fault = Fault(truncate_after=5000)
    came, ended = received(proxy)
    assert (len(came), ended) == (5000, None)


def test_a_corruption_flips_one_byte_of_the_connection(proxy: FaultProxy) -> None:
    whole, _ = received(proxy)
    proxy.fault = Fault(corrupt_at=100_000)
    came, _ = received(proxy)
    assert came == whole[:100_000] + bytes([whole[100_000] ^ 0xFF]) + whole[100_001:]


def test_a_stall_keeps_silent_on_an_open_connection(proxy: FaultProxy) -> None:
    proxy.fault = Fault(stall_after=5000)
    came, ended = received(proxy, timeout=0.2)
    assert (len(came), ended) == (5000, TimeoutError)


def test_a_refusal_resets_the_connection_at_once(proxy: FaultProxy) -> None:
    proxy.fault = Fault(refuse=True)
    with pytest.raises((ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected)):
        ask(f"{proxy.url}/big")


def test_latency_comes_before_each_answer(proxy: FaultProxy) -> None:
    proxy.fault = Fault(latency=0.05)
    began = monotonic()
    ask(f"{proxy.url}/bucket/x.bin")
    assert monotonic() - began >= 0.05


def test_the_proxys_rate_holds_the_bytes_back(proxy: FaultProxy) -> None:
    proxy.fault = Fault(rate=20 * len(WEIGHTS))
    began = monotonic()
    ask(f"{proxy.url}/big")
    assert monotonic() - began >= 0.04


def test_an_injected_fault_hits_only_the_next_connections(proxy: FaultProxy) -> None:
    proxy.inject(Fault(truncate_after=10), connections=2)
    assert [len(received(proxy)[0]) > 10 for _ in range(3)] == [False, False, True]


def test_a_stopped_proxy_refuses_connections(store: ObjectStore) -> None:
    with FaultProxy(urlsplit(store.endpoint).port or 0) as proxy:
        pass
    with pytest.raises(ConnectionRefusedError):
        ask(proxy.url)
