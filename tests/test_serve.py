"""`hubcache serve` as a process: the command, and a Hub before it whose repos it fills itself with."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

from tests.support.archives import pack
from tests.support.asking import ask, asked, head
from tests.support.commandline import CommandLine, run
from tests.support.hubrepo import lfs_pointer
from tests.support.loophub import LoopHub
from tests.support.objectstore import ObjectStore
from tests.support.serving import Served
from tests.support.waiting import until
from tests.support.wholeness import digest, faults

CONFIG = b'{"model_type": "bert"}'
WEIGHTS = bytes(range(256)) * 1200
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "sub/notes.txt": b"below\n"}
NO_AIOHTTP = "import sys; sys.modules['aiohttp'] = None; from hubcache_cli.main import main; main(['serve'])"
INCOMPLETE = """
import sys
from huggingface_hub import snapshot_download
snapshot_download("org/listed", cache_dir=sys.argv[1])
"""
RULES = 'serve:\n- {names: ["always"], fresh: 0}\n- {names: ["soon"], fresh: 0.4}\n'


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopHub]:
    with LoopHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def mirror(hub: LoopHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the hub behind it; each test has repos of its own."""
    folder = tmp_path_factory.mktemp("mirror")
    (folder / "mirrors.yaml").write_text(RULES)
    rules = str(folder / "mirrors.yaml")
    with Served(folder, HF_ENDPOINT=hub.endpoint, HUBCACHE_MIRRORS=rules) as served:
        yield served


def file_url(name: str, path: str, revision: str = "main") -> str:
    return f"/{name}/resolve/{revision}/{path}"


# -- the command


def test_the_endpoint_is_the_first_and_only_line_on_stdout(mirror: Served) -> None:
    assert mirror.endpoint.startswith("http://127.0.0.1:")
    assert str(mirror.cache) in mirror.log


def test_healthz_answers_with_version_and_mode(mirror: Served) -> None:
    told = ask(mirror.endpoint, "/healthz")
    assert (told.status, told.facts["status"], told.facts["mode"]) == (200, "ok", "pull-through")


def test_the_start_page_says_what_to_set(mirror: Served) -> None:
    assert f"HF_ENDPOINT={mirror.endpoint}" in ask(mirror.endpoint, "/").body.decode()


def test_sigterm_ends_it_with_0(tmp_path: Path) -> None:
    with Served(tmp_path, "--offline") as served:
        assert ask(served.endpoint, "/healthz").facts["mode"] == "offline"
        assert served.stop() == 0


def test_it_ends_though_a_client_waits_for_a_file(tmp_path: Path) -> None:
    with LoopHub() as hub, Served(tmp_path, HF_ENDPOINT=hub.endpoint) as served:
        hub.add_repo("org/slow", FILES)
        hub.stall["model.safetensors"] = 1000
        waiting = socket.create_connection(("127.0.0.1", served.port))
        waiting.sendall(b"GET /org/slow/resolve/main/model.safetensors HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: any(each.origin == "cdn" for each in hub.requests), "the fill to begin")
        began = time.monotonic()
        assert (served.stop(), time.monotonic() - began < 10) == (0, True)
        waiting.close()


def test_a_port_that_is_taken_is_a_usage_error_with_a_hint(mirror: Served, tmp_path: Path) -> None:
    ran = CommandLine(tmp_path)("serve", "--offline", "--port", str(mirror.port))
    assert (ran.code, ran.out) == (2, "")
    assert f"cannot listen at 127.0.0.1:{mirror.port}" in ran.err
    assert "--port" in ran.err


def test_without_aiohttp_the_hint_says_what_to_install(tmp_path: Path) -> None:
    ran = run(sys.executable, "-c", NO_AIOHTTP, timeout=60, **CommandLine(tmp_path).environ)
    assert ran.code == 2
    assert "pip install 'hubcache[serve]'" in ran.err


@pytest.mark.parametrize("how", ["--offline", "HF_HUB_OFFLINE"])
def test_offline_nobody_outside_is_asked(hub: LoopHub, tmp_path: Path, how: str) -> None:
    hub.add_repo("org/unasked", FILES)
    arguments = [how] if how == "--offline" else []
    environ = {} if arguments else {how: "1"}
    with Served(tmp_path, *arguments, HF_ENDPOINT=hub.endpoint, **environ) as served:
        answer = ask(served.endpoint, file_url("org/unasked", "config.json"))
    assert (answer.status, answer.code, asked(hub, "org/unasked")) == (404, "RepoNotFound", [])


def test_cache_dir_has_the_last_word_on_the_cache(hub: LoopHub, tmp_path: Path) -> None:
    hub.add_repo("org/elsewhere", FILES)
    with Served(tmp_path, "--cache-dir", str(tmp_path / "other"), HF_ENDPOINT=hub.endpoint) as served:
        assert ask(served.endpoint, file_url("org/elsewhere", "config.json")).body == CONFIG
    assert (tmp_path / "other/models--org--elsewhere").is_dir()
    assert not served.cache.exists()


def test_a_server_that_is_its_own_hf_endpoint_never_asks_itself(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Served(tmp_path, port=port, HF_ENDPOINT=f"http://localhost:{port}") as served:
        assert "HF_ENDPOINT is this server itself" in served.log


# -- pull-through


def test_the_first_request_stores_and_the_second_costs_upstream_nothing(hub: LoopHub, mirror: Served) -> None:
    hub.add_repo("org/twice", FILES)
    first = ask(mirror.endpoint, file_url("org/twice", "model.safetensors"))
    before = asked(hub, "org/twice")
    second = ask(mirror.endpoint, file_url("org/twice", "model.safetensors"))
    assert (first.body, second.body) == (WEIGHTS, WEIGHTS)
    assert asked(hub, "org/twice") == before
    blob = mirror.cache / "models--org--twice/blobs" / digest(WEIGHTS, 64)
    until(blob.exists, "the blob")
    assert blob.read_bytes() == WEIGHTS


def test_a_file_is_answered_at_once_with_its_commit_digest_and_size(hub: LoopHub, mirror: Served) -> None:
    commit = hub.add_repo("org/headers", FILES)
    told = head(mirror.endpoint, file_url("org/headers", "model.safetensors"))
    assert (told.status, told.commit) == (200, commit)
    assert told.headers["etag"] == f'"{digest(WEIGHTS, 64)}"'
    assert (told.headers["content-length"], told.headers["accept-ranges"]) == (str(len(WEIGHTS)), "bytes")
    assert "xet" not in json.dumps(told.headers).lower()


def test_a_known_commit_costs_no_upstream_request(hub: LoopHub, mirror: Served) -> None:
    commit = hub.add_repo("org/pinned", FILES)
    ask(mirror.endpoint, file_url("org/pinned", "config.json", commit))
    before = asked(hub, "org/pinned")
    answers = [ask(mirror.endpoint, file_url("org/pinned", "config.json", commit)) for _ in range(2)]
    answers.append(ask(mirror.endpoint, f"/api/models/org/pinned/tree/{commit}"))
    answers.append(ask(mirror.endpoint, f"/api/models/org/pinned/revision/{commit}"))
    assert ([each.status for each in answers], asked(hub, "org/pinned")) == ([200] * 4, before)


def test_a_commit_that_was_pulled_before_costs_no_upstream_request(hub: LoopHub, tmp_path: Path) -> None:
    commit = hub.add_repo("org/pulled", FILES)
    assert CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint)("pull", "org/pulled").code == 0
    before = asked(hub, "org/pulled")
    with Served(tmp_path, HF_ENDPOINT=hub.endpoint) as served:
        answer = ask(served.endpoint, file_url("org/pulled", "model.safetensors", commit))
    assert (answer.body, asked(hub, "org/pulled")) == (WEIGHTS, before)


def test_a_branch_is_asked_again_when_it_is_no_longer_fresh(hub: LoopHub, mirror: Served) -> None:
    hub.add_repo("soon/asked", FILES)
    head(mirror.endpoint, file_url("soon/asked", "config.json"))
    before = len(asked(hub, "soon/asked"))

    def is_asked() -> bool:
        head(mirror.endpoint, file_url("soon/asked", "config.json"))
        return len(asked(hub, "soon/asked")) > before

    until(is_asked, "the branch to be asked again")


def test_a_branch_is_not_asked_again_while_it_is_fresh(hub: LoopHub, mirror: Served) -> None:
    hub.add_repo("org/fresh", FILES)
    head(mirror.endpoint, file_url("org/fresh", "config.json"))
    before = asked(hub, "org/fresh")
    head(mirror.endpoint, file_url("org/fresh", "sub/notes.txt"))
    ask(mirror.endpoint, "/api/models/org/fresh")
    assert asked(hub, "org/fresh") == before


def test_a_branch_that_moved_is_followed_and_old_commits_are_still_served(hub: LoopHub, mirror: Served) -> None:
    old = hub.add_repo("always/moved", FILES)
    ask(mirror.endpoint, file_url("always/moved", "config.json"))
    new = hub.add_commit("always/moved", {"config.json": b"{}"})
    moved = ask(mirror.endpoint, file_url("always/moved", "config.json"))
    kept = ask(mirror.endpoint, file_url("always/moved", "config.json", old))
    assert (moved.body, moved.commit, kept.body, kept.commit) == (b"{}", new, CONFIG, old)


def test_what_upstream_does_not_have_is_declared_absent(hub: LoopHub, mirror: Served) -> None:
    commit = hub.add_repo("org/lacks", FILES)
    no_file = ask(mirror.endpoint, file_url("org/lacks", "no.bin"))
    no_revision = ask(mirror.endpoint, file_url("org/lacks", "config.json", "nowhere"))
    no_repo = ask(mirror.endpoint, file_url("org/nothing", "config.json"))
    assert (no_file.status, no_file.code, no_file.commit) == (404, "EntryNotFound", commit)
    assert (no_revision.status, no_revision.code) == (404, "RevisionNotFound")
    assert (no_repo.status, no_repo.code) == (404, "RepoNotFound")


def test_huggingface_hub_pulls_a_snapshot_and_stores_upstreams_bytes(
    hub: LoopHub, mirror: Served, tmp_path: Path
) -> None:
    commit = hub.add_repo("org/client", FILES)
    got = Path(snapshot_download("org/client", endpoint=mirror.endpoint, cache_dir=tmp_path))
    assert (got.name, {path: (got / path).read_bytes() for path in FILES}) == (commit, FILES)


def test_the_servers_own_cache_reads_offline_by_huggingface_hub(hub: LoopHub, mirror: Served) -> None:
    commit = hub.add_repo("org/readable", FILES)
    for path in FILES:
        ask(mirror.endpoint, file_url("org/readable", path))
    snapshot = mirror.cache / "models--org--readable/snapshots" / commit
    until(lambda: all((snapshot / path).exists() for path in FILES), "the links")
    found = Path(snapshot_download("org/readable", cache_dir=mirror.cache, local_files_only=True))
    one = Path(hf_hub_download("org/readable", "config.json", cache_dir=mirror.cache, local_files_only=True))
    assert ({path: (found / path).read_bytes() for path in FILES}, one.read_bytes()) == (FILES, CONFIG)
    assert [fault for fault in faults(mirror.cache) if "readable" in fault] == []


def test_what_was_only_listed_is_incomplete_to_huggingface_hub(hub: LoopHub, mirror: Served, tmp_path: Path) -> None:
    hub.add_repo("org/listed", FILES)
    ask(mirror.endpoint, "/api/models/org/listed")
    ran = CommandLine(tmp_path).python(INCOMPLETE, mirror.cache)
    assert ran.code != 0
    assert "IncompleteSnapshotError" in ran.err


# -- kinds, revisions, names


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_datasets_and_spaces_are_served(hub: LoopHub, mirror: Served, tmp_path: Path, kind: str) -> None:
    commit = hub.add_repo(f"org/a-{kind}", FILES, kind=kind)
    got = Path(snapshot_download(f"org/a-{kind}", repo_type=kind, endpoint=mirror.endpoint, cache_dir=tmp_path))
    assert ((got / "model.safetensors").read_bytes(), got.name) == (WEIGHTS, commit)
    assert HfApi(mirror.endpoint).repo_info(f"org/a-{kind}", repo_type=kind).sha == commit


def test_a_model_and_a_dataset_of_one_name_are_two_repos(hub: LoopHub, mirror: Served) -> None:
    hub.add_repo("org/both", {"a.txt": b"model"})
    hub.add_repo("org/both", {"a.txt": b"dataset"}, kind="dataset")
    urls = [file_url("org/both", "a.txt"), file_url("datasets/org/both", "a.txt")]
    assert [ask(mirror.endpoint, url).body for url in urls] == [b"model", b"dataset"]


@pytest.fixture(scope="module")
def revisions(hub: LoopHub) -> dict[str, str]:
    """A repo with a commit behind each kind of name."""
    main = hub.add_repo("org/revisions", {"a.txt": b"main"})
    found = {"main": main, "HEAD": main, main[:7]: main}
    for name, ref in {"v1.0": "refs/tags/v1.0", "dev/x": "dev/x", "refs/pr/1": "refs/pr/1"}.items():
        found[name] = hub.add_commit("org/revisions", {"a.txt": name.encode()}, revision=ref)
    return found


def test_every_kind_of_revision_is_served_with_its_commit(
    hub: LoopHub, mirror: Served, revisions: dict[str, str]
) -> None:
    got = {}
    for name in revisions:
        answer = head(mirror.endpoint, file_url("org/revisions", "a.txt", quote(name, safe="")))
        got[name] = answer.commit
    assert got == revisions


def test_a_pull_requests_ref_may_come_with_raw_slashes(mirror: Served, revisions: dict[str, str]) -> None:
    answer = ask(mirror.endpoint, file_url("org/revisions", "a.txt", "refs/pr/1"))
    assert (answer.body, answer.commit) == (b"refs/pr/1", revisions["refs/pr/1"])


def test_huggingface_hub_writes_the_refs_it_asked_for(
    mirror: Served, revisions: dict[str, str], tmp_path: Path
) -> None:
    for name in ("v1.0", "dev/x", "refs/pr/1"):
        got = hf_hub_download("org/revisions", "a.txt", revision=name, endpoint=mirror.endpoint, cache_dir=tmp_path)
        assert Path(got).read_bytes() == name.encode()
        assert (tmp_path / "models--org--revisions/refs" / name).read_text() == revisions[name]


def test_a_renamed_repo_is_served_by_the_name_that_was_asked_for(hub: LoopHub, mirror: Served) -> None:
    commit = hub.add_repo("org/was", FILES)
    hub.rename("org/was", "org/is-now")
    got = [ask(mirror.endpoint, file_url(name, "model.safetensors")) for name in ("org/was", "org/is-now")]
    assert [(each.status, each.body, each.commit) for each in got] == [(200, WEIGHTS, commit)] * 2


def test_raw_of_an_lfs_file_is_its_pointer(hub: LoopHub, mirror: Served) -> None:
    hub.add_repo("org/raw", FILES)
    answer = ask(mirror.endpoint, "/org/raw/raw/main/model.safetensors")
    assert answer.body == lfs_pointer(digest(WEIGHTS, 64), len(WEIGHTS))
    assert ask(mirror.endpoint, "/org/raw/raw/main/config.json").body == CONFIG


# -- repos from elsewhere


def test_a_repo_made_of_a_folder_is_served_and_its_name_never_told_outside(hub: LoopHub, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_bytes(CONFIG)
    (tmp_path / "mine/model.safetensors").write_bytes(WEIGHTS)
    assert CommandLine(tmp_path)("pull", tmp_path / "mine", "--as", "me/secret").code == 0
    with Served(tmp_path, HF_ENDPOINT=hub.endpoint) as served:
        got = Path(snapshot_download("me/secret", endpoint=served.endpoint, cache_dir=tmp_path / "client"))
        assert (got / "model.safetensors").read_bytes() == WEIGHTS
        for url in (
            file_url("me/secret", "no.bin"),
            file_url("me/secret", "config.json", "dev"),
            "/api/models/me/secret/refs",
        ):
            ask(served.endpoint, url)
    assert asked(hub, "me/secret") == []


def test_a_repo_made_of_an_archive_is_served_and_its_name_never_told_outside(hub: LoopHub, tmp_path: Path) -> None:
    with ObjectStore({"m.tar.gz": pack({f"m/{path}": body for path, body in FILES.items()}, ".tar.gz")}) as store:
        assert CommandLine(tmp_path)("pull", store.url("m.tar.gz"), "--as", "team/archived").code == 0
    with Served(tmp_path, HF_ENDPOINT=hub.endpoint) as served:
        got = {path: ask(served.endpoint, file_url("team/archived", path)).body for path in FILES}
        assert ask(served.endpoint, file_url("team/archived", "config.json", "original")).body == CONFIG
        assert "team/archived" in {each.id for each in HfApi(served.endpoint).list_models()}
    assert (got, asked(hub, "team/archived")) == (FILES, [])


def test_a_repo_made_while_the_server_runs_is_not_asked_for_outside(hub: LoopHub, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_bytes(CONFIG)
    with Served(tmp_path, HF_ENDPOINT=hub.endpoint) as served:
        assert CommandLine(tmp_path)("pull", tmp_path / "mine", "--as", "me/later").code == 0
        assert ask(served.endpoint, file_url("me/later", "config.json")).body == CONFIG
    assert asked(hub, "me/later") == []


# -- more than 50 GB


def test_huggingface_hub_alone_is_not_told_a_size_beyond_its_limit(tmp_path: Path) -> None:
    commit, size = "ab" * 20, 60_000_000_000
    repo = tmp_path / "hub/models--org--huge"
    rows = {"big.bin": {"size": size, "blob_id": "cd" * 20, "lfs_sha256": "ef" * 32, "lfs_size": size}}
    for folder in ("trees", "refs", f"snapshots/{commit}"):
        (repo / folder).mkdir(parents=True)
    (repo / f"trees/{commit}.json").write_text(json.dumps({"format_version": 1, "files": rows}))
    (repo / "refs/main").write_text(commit)
    url = file_url("org/huge", "big.bin")
    with Served(tmp_path, "--offline") as served:
        client = head(served.endpoint, url, user_agent="unknown/None; hf_hub/2.4.0; python/3.11")
        other = head(served.endpoint, url, user_agent="curl/8")
    assert (client.status, {"content-length", "x-linked-size"} & client.headers.keys()) == (200, set())
    assert (other.headers["content-length"], other.headers["x-linked-size"]) == (str(size), str(size))


def test_in_a_cache_without_links_many_clients_of_one_cold_file_all_get_it(hub: LoopHub, tmp_path: Path) -> None:
    files = {f"{number}.bin": bytes([number]) * 3000 * (1 + number % 2 * 99) for number in range(12)}
    hub.add_repo("org/real", files)
    with (
        Served(tmp_path, HF_ENDPOINT=hub.endpoint, HF_HUB_DISABLE_SYMLINKS="1") as served,
        ThreadPoolExecutor(12) as pool,
    ):
        wanted = [path for path in files for _ in range(6)]
        got = list(pool.map(lambda path: ask(served.endpoint, file_url("org/real", path)), wanted))
    assert [(each.status, each.body == files[path]) for path, each in zip(wanted, got, strict=True)] == [
        (200, True)
    ] * 72
    assert not [file for file in served.cache.rglob("*") if file.is_symlink()]


def test_what_was_served_is_counted_and_shows_in_ls(hub: LoopHub, tmp_path: Path) -> None:
    hub.add_repo("org/used", {"a.txt": b"a", "b.txt": b"b"})
    with Served(tmp_path, HF_ENDPOINT=hub.endpoint) as served:
        for path in ("a.txt", "b.txt", "a.txt"):
            assert ask(served.endpoint, file_url("org/used", path)).status == 200
        assert served.stop() == 0
    rows = CommandLine(tmp_path)("ls", "--json").facts
    assert [(row["repo"], row["hits"]) for row in rows if row["repo"] == "org/used"] == [("org/used", 3)]
