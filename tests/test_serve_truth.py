"""What `hubcache serve` says of a repo that is here in part, damaged, or written by huggingface_hub alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from zlib import crc32

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError

from tests.support.asking import Answer, ask, asked, head
from tests.support.hubrepo import git_id, lfs_pointer
from tests.support.loophub import LoopHub
from tests.support.othercaches import damage, real_files, shared_blob
from tests.support.serving import Served
from tests.support.waiting import until
from tests.support.wholeness import digest

CONFIG = b'{"model_type": "bert"}'
WEIGHTS = bytes(range(256)) * 1200
"""Longer than what the server holds back until it has proven a file."""
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "sub/notes.txt": b"below\n"}
WEIGHTS_URL = "/org/x/resolve/main/model.safetensors"
INDEX = "home/.local/state/hubcache/index.sqlite3"
POINTER = 131
"""Bytes of WEIGHTS' LFS pointer."""
COMMIT = "ab" * 20


@dataclass(frozen=True, slots=True)
class Case:
    """One test's repo: upstream has it, the cache has what the test puts there, and two servers serve that cache."""

    hub: LoopHub
    cache: Path
    name: str
    offline: Served
    online: Served

    @property
    def repo(self) -> Path:
        """Where the repo stands in the cache."""
        return self.cache / f"models--{self.name.replace('/', '--')}"

    def url(self, path: str, revision: str = "main") -> str:
        """Return the path of a file's bytes."""
        return f"/{self.name}/resolve/{revision}/{path}"

    def download(self, *paths: str) -> str:
        """Let huggingface_hub bring single files, which leaves no listing; return the commit."""
        got = [hf_hub_download(self.name, path, endpoint=self.hub.endpoint, cache_dir=self.cache) for path in paths]
        return Path(got[0]).relative_to(self.repo / "snapshots").parts[0]

    def snapshot(self, *patterns: str) -> str:
        """Let huggingface_hub bring a snapshot, or what of it has these names; its listing is whole.

        Returns the commit.
        """
        wanted = list(patterns) or None
        got = snapshot_download(self.name, endpoint=self.hub.endpoint, cache_dir=self.cache, allow_patterns=wanted)
        return Path(got).name

    def tree(self, served: Served) -> dict[str, dict[str, object]]:
        """Return the files that a server lists, by path."""
        return tree(served, self.name)


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopHub]:
    with LoopHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def servers(hub: LoopHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Served]]:
    """Two servers of one cache: one without an upstream and one with."""
    folder = tmp_path_factory.mktemp("truth")
    with Served(folder, "--offline") as offline, Served(folder, HF_ENDPOINT=hub.endpoint) as online:
        yield offline, online


@pytest.fixture
def case(hub: LoopHub, servers: tuple[Served, Served], request: pytest.FixtureRequest) -> Case:
    name = f"org/{crc32(request.node.name.encode()):08x}"
    hub.add_repo(name, FILES)
    return Case(hub, servers[0].cache, name, *servers)


def tree(served: Served, name: str = "org/x") -> dict[str, dict[str, object]]:
    rows = ask(served.endpoint, f"/api/models/{name}/tree/main?recursive=true").facts
    return {row["path"]: row for row in rows if row["type"] == "file"}


def is_whole(answer: Answer, content: bytes) -> bool:
    return answer.status == 200 and not answer.is_short and len(answer.body) == len(content)


# -- a whole listing, not all bytes


def test_what_is_listed_and_not_here_is_told_by_head_and_refused_by_get(case: Case) -> None:
    commit = case.snapshot("config.json")
    url = case.url("model.safetensors")
    told, refused = head(case.offline.endpoint, url), ask(case.offline.endpoint, url)
    assert set(case.tree(case.offline)) == set(FILES)
    assert ask(case.offline.endpoint, case.url("config.json")).body == CONFIG
    assert (told.status, told.commit, told.headers["content-length"]) == (200, commit, str(len(WEIGHTS)))
    assert refused.status == 504
    assert "its bytes are not in this cache" in refused.headers["x-error-message"]


def test_what_a_whole_listing_lacks_is_absent_for_certain(case: Case) -> None:
    commit = case.snapshot("config.json")
    answer = ask(case.offline.endpoint, case.url("no.bin"))
    assert (answer.status, answer.code, answer.commit) == (404, "EntryNotFound", commit)


def test_what_is_listed_and_not_here_is_fetched_where_there_is_an_upstream(case: Case) -> None:
    commit = case.snapshot("config.json")
    assert ask(case.online.endpoint, case.url("model.safetensors", commit)).body == WEIGHTS


def test_a_blob_that_was_cut_short_counts_as_missing(case: Case) -> None:
    case.snapshot()
    (case.repo / "blobs" / digest(WEIGHTS, 64)).write_bytes(WEIGHTS[:1000])
    assert ask(case.offline.endpoint, case.url("model.safetensors")).status == 504
    assert ask(case.online.endpoint, case.url("model.safetensors")).body == WEIGHTS


# -- huggingface_hub's single files, without a listing


def test_single_files_are_listed_with_the_hubs_own_digests(case: Case) -> None:
    case.download("config.json", "model.safetensors")
    assert not (case.repo / "trees").exists()
    rows = case.tree(case.offline)
    siblings = [each.rfilename for each in HfApi(case.offline.endpoint).model_info(case.name).siblings or []]
    lfs = rows["model.safetensors"].pop("lfs")
    oid = git_id("blob", lfs_pointer(digest(WEIGHTS, 64), len(WEIGHTS)))
    assert lfs == {"oid": digest(WEIGHTS, 64), "size": len(WEIGHTS), "pointerSize": POINTER}
    assert rows == {
        "config.json": {"type": "file", "oid": git_id("blob", CONFIG), "size": len(CONFIG), "path": "config.json"},
        "model.safetensors": {"type": "file", "oid": oid, "size": len(WEIGHTS), "path": "model.safetensors"},
    }
    assert sorted(siblings) == sorted(rows)


def test_what_is_not_known_is_never_declared_absent(case: Case, tmp_path: Path) -> None:
    case.download("config.json")
    answer = ask(case.offline.endpoint, case.url("model.safetensors"))
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(case.name, "model.safetensors", endpoint=case.offline.endpoint, cache_dir=tmp_path)
    assert (answer.status, answer.code, answer.commit) == (404, "EntryNotFound", None)
    assert not list(tmp_path.rglob(".no_exist/*/*"))


def test_what_the_hub_said_is_absent_is_declared_absent(case: Case, tmp_path: Path) -> None:
    commit = case.download("config.json")
    with pytest.raises(EntryNotFoundError):
        case.download("no.bin")
    answer = ask(case.offline.endpoint, case.url("no.bin"))
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(case.name, "no.bin", endpoint=case.offline.endpoint, cache_dir=tmp_path)
    assert (answer.status, answer.code, answer.commit) == (404, "EntryNotFound", commit)
    assert [path.name for path in tmp_path.rglob(".no_exist/*/*")] == ["no.bin"]


def test_a_client_loads_the_single_file_that_is_here(case: Case, tmp_path: Path) -> None:
    commit = case.download("model.safetensors")
    got = hf_hub_download(case.name, "model.safetensors", endpoint=case.offline.endpoint, cache_dir=tmp_path)
    assert (Path(got).read_bytes(), Path(got).parent.name) == (WEIGHTS, commit)


def test_with_an_upstream_a_commit_that_is_known_in_part_becomes_known_whole(case: Case) -> None:
    commit = case.download("config.json")
    assert set(case.tree(case.online)) == set(FILES)
    before = asked(case.hub, case.name)
    answer = ask(case.online.endpoint, case.url("no.bin", commit))
    assert (answer.status, answer.commit, asked(case.hub, case.name)) == (404, commit, before)


def test_a_file_that_comes_while_the_server_runs_appears(case: Case) -> None:
    case.download("config.json")
    assert set(case.tree(case.offline)) == {"config.json"}
    case.download("sub/notes.txt")
    url = case.url("sub/notes.txt")
    until(lambda: ask(case.offline.endpoint, url).body == FILES["sub/notes.txt"], "the file", seconds=5)


def test_a_listing_that_comes_while_the_server_runs_is_read(case: Case) -> None:
    case.download("config.json")
    assert set(case.tree(case.offline)) == {"config.json"}
    case.snapshot("config.json")
    until(lambda: set(case.tree(case.offline)) == set(FILES), "the listing", seconds=5)


def test_a_card_that_comes_while_the_server_runs_closes_the_repo(case: Case) -> None:
    case.hub.add_commit(case.name, {"README.md": b"---\nextra_gated_prompt: agree\n---\n"})
    case.snapshot("config.json")
    assert ask(case.offline.endpoint, case.url("config.json")).status == 200
    case.snapshot("README.md")
    assert ask(case.offline.endpoint, case.url("config.json")).code == "GatedRepo"


def test_a_repo_that_was_deleted_while_the_server_runs_is_gone(case: Case) -> None:
    commit = case.snapshot()
    assert ask(case.offline.endpoint, case.url("config.json")).body == CONFIG
    rmtree(case.repo)
    answers = [ask(case.offline.endpoint, case.url("config.json", each)) for each in ("main", commit)]
    assert [(each.status, each.code) for each in answers] == [(404, "RepoNotFound")] * 2


def test_a_repo_that_was_deleted_while_the_server_runs_is_pulled_again(case: Case) -> None:
    commit = case.snapshot()
    assert ask(case.online.endpoint, case.url("model.safetensors")).body == WEIGHTS
    rmtree(case.repo)
    answers = [ask(case.online.endpoint, case.url("model.safetensors", each)) for each in ("main", commit)]
    assert [(each.body, each.commit) for each in answers] == [(WEIGHTS, commit)] * 2


# -- caches without links, and with the shared store


def index_rows(folder: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(folder / INDEX) as index:
        return index.execute("SELECT path, size, git_sha1, sha256 FROM hashes ORDER BY path").fetchall()


@pytest.fixture
def real(hub: LoopHub, tmp_path: Path) -> Path:
    """A folder whose cache has org/x as huggingface_hub writes it where there are no links."""
    hub.add_repo("org/x", FILES)
    real_files(tmp_path, hub.endpoint, "org/x", "config.json", "model.safetensors")
    assert not [file for file in (tmp_path / "hub").rglob("*") if file.is_symlink()]
    return tmp_path


def weights_of(folder: Path) -> Path:
    return next((folder / "hub").rglob("snapshots/*/model.safetensors"))


def test_real_files_are_listed_with_the_hubs_digests_and_remembered(real: Path) -> None:
    with Served(real, "--offline") as served:
        rows = tree(served)
        assert ask(served.endpoint, WEIGHTS_URL).body == WEIGHTS
        assert served.stop() == 0
    assert rows["config.json"]["oid"] == git_id("blob", CONFIG)
    assert rows["model.safetensors"]["lfs"] == {
        "oid": digest(WEIGHTS, 64),
        "size": len(WEIGHTS),
        "pointerSize": POINTER,
    }
    assert (str(weights_of(real)), len(WEIGHTS), digest(WEIGHTS, 40), digest(WEIGHTS, 64)) in index_rows(real)


def test_the_next_server_hashes_nothing_again_but_what_was_changed(real: Path) -> None:
    with Served(real, "--offline") as served:
        tree(served)
        served.stop()
    with sqlite3.connect(real / INDEX) as index:
        index.execute("UPDATE hashes SET sha256 = ?", ("f" * 64,))
    with Served(real, "--offline") as served:
        believed = tree(served)["model.safetensors"]["lfs"]
        served.stop()
    changed = damage(weights_of(real))
    with Served(real, "--offline") as served:
        hashed = tree(served)["model.safetensors"]["lfs"]
        assert ask(served.endpoint, WEIGHTS_URL).body == changed
    lfs = {"size": len(WEIGHTS), "pointerSize": POINTER}
    assert (believed, hashed) == (lfs | {"oid": "f" * 64}, lfs | {"oid": digest(changed, 64)})


def test_huggingface_hubs_shared_blobs_are_served_through_their_links(tmp_path: Path) -> None:
    shared_blob(tmp_path / "hub", "org/x", COMMIT, "sub/model.safetensors", WEIGHTS)
    with Served(tmp_path, "--offline") as served:
        endpoint, path = served.endpoint, "sub/model.safetensors"
        got = Path(hf_hub_download("org/x", path, endpoint=endpoint, cache_dir=tmp_path / "client"))
        assert (got.read_bytes(), got.resolve().name) == (WEIGHTS, digest(WEIGHTS, 64))
        (tmp_path / "hub/blobs/ab" / ("ab" * 32)).unlink()
        answer = ask(endpoint, f"/org/x/resolve/main/{path}")
        assert answer.status in {404, 504}
        assert (answer.commit, answer.is_short) == (None, False)


# -- damage

DAMAGED = pytest.mark.parametrize("path", ["model.safetensors", "config.json"])


@DAMAGED
def test_a_damaged_file_is_never_served_whole(case: Case, path: str) -> None:
    commit = case.snapshot()
    damage(case.repo / "snapshots" / commit / path)
    answers = [ask(case.offline.endpoint, case.url(path)) for _ in range(3)]
    assert not any(is_whole(each, FILES[path]) for each in answers)
    assert answers[-1].status == 502
    assert "is not what its name says" in case.offline.log


@DAMAGED
def test_a_damaged_file_is_set_aside_and_fetched_anew(case: Case, path: str) -> None:
    commit = case.snapshot()
    bad = damage(case.repo / "snapshots" / commit / path)
    answers = [ask(case.online.endpoint, case.url(path))]
    until(lambda: answers.append(ask(case.online.endpoint, case.url(path))) or is_whole(answers[-1], bad), "all of it")
    assert {each.body for each in answers if is_whole(each, bad)} == {FILES[path]}
    assert [file.read_bytes() for file in (case.repo / "quarantine").iterdir()] == [bad]
    until((case.repo / "snapshots" / commit / path).exists, "the sound file in its place")
    assert (case.repo / "snapshots" / commit / path).read_bytes() == FILES[path]


def test_a_range_after_damage_is_answered_with_the_whole_file(case: Case) -> None:
    commit = case.snapshot()
    damage(case.repo / "snapshots" / commit / "model.safetensors")
    url = case.url("model.safetensors")
    until(lambda: is_whole(ask(case.online.endpoint, url), WEIGHTS), "the file to be fetched anew")
    rest = ask(case.online.endpoint, url, headers={"Range": "bytes=100000-"})
    assert (rest.status, rest.body) == (200, WEIGHTS)


def test_damage_done_while_the_server_runs_is_noticed(case: Case) -> None:
    commit = case.snapshot()
    assert ask(case.offline.endpoint, case.url("model.safetensors")).body == WEIGHTS
    damage(case.repo / "snapshots" / commit / "model.safetensors")
    assert not is_whole(ask(case.offline.endpoint, case.url("model.safetensors")), WEIGHTS)


def test_a_damaged_real_file_is_fetched_anew(hub: LoopHub, real: Path) -> None:
    with Served(real, HF_ENDPOINT=hub.endpoint) as served:
        assert ask(served.endpoint, WEIGHTS_URL).body == WEIGHTS
        file = weights_of(real)
        bad = damage(file)
        until(lambda: is_whole(ask(served.endpoint, WEIGHTS_URL), WEIGHTS), "the file to be fetched anew")
        until(file.exists, "the sound file in its place")
        assert (ask(served.endpoint, WEIGHTS_URL).body, file.read_bytes()) == (WEIGHTS, WEIGHTS)
    assert [each.read_bytes() for each in file.parents[2].glob("quarantine/*")] == [bad]


# -- repos in disorder


def test_a_ref_that_ends_in_a_newline_is_read(case: Case) -> None:
    commit = case.snapshot()
    (case.repo / "refs/main").write_text(commit + "\n")
    assert ask(case.offline.endpoint, case.url("config.json")).commit == commit


def test_a_ref_that_means_nothing_here_is_no_revision(case: Case) -> None:
    commit = case.snapshot()
    (case.repo / "refs/main").write_text(COMMIT)
    answer = ask(case.offline.endpoint, case.url("config.json"))
    assert (answer.status, answer.code) == (404, "RevisionNotFound")
    assert ask(case.offline.endpoint, case.url("config.json", commit)).body == CONFIG


def test_an_empty_repo_folder_is_no_repo_offline_and_filled_where_there_is_an_upstream(case: Case) -> None:
    case.repo.mkdir(parents=True)
    answer = ask(case.offline.endpoint, case.url("config.json"))
    assert (answer.status, answer.code) == (404, "RepoNotFound")
    assert ask(case.online.endpoint, case.url("config.json")).body == CONFIG


def test_repos_in_disorder_do_not_hide_the_others_from_the_list(hub: LoopHub, tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    for name in ("org/sound", "org/astray"):
        hub.add_repo(name, FILES)
        snapshot_download(name, endpoint=hub.endpoint, cache_dir=cache)
    (cache / "models--org--astray/refs/main").write_text(COMMIT)
    (cache / "models--org--empty").mkdir()
    (cache / "models--org--file").write_text("no folder")
    (cache / "models--org--odd/snapshots" / COMMIT).mkdir(parents=True)
    (cache / "models--org--odd/snapshots" / COMMIT / "a\\b").write_bytes(b"?")
    with Served(tmp_path, "--offline") as served:
        listed = {each.id for each in HfApi(served.endpoint).list_models()}
    assert listed == {"org/sound", "org/astray"}
