"""huggingface_hub itself, in processes of its own: it loads what we wrote, and we load what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hubcache.core.artifact import RepoId
from hubcache.core.plan import plan_copy
from hubcache.core.reference import Reference
from tests.support.loophub import LoopHub
from tests.support.puller import Puller, bodies
from tests.support.wholeness import faults, unverified

REPO = RepoId("hf", "model", "org/m")
FILES = {"config.json": b'{"a": 1}', "sub/deep/n.txt": b"deep", "model.safetensors": os.urandom(3000), "empty.txt": b""}
CALLS = """
import json, sys
from pathlib import Path
import huggingface_hub
told = {}
for key, function, keywords in json.loads(sys.argv[1]):
    try:
        told[key] = str(getattr(huggingface_hub, function)(**keywords))
    except Exception as error:
        told[key] = [kind.__name__ for kind in type(error).__mro__]
print(json.dumps(told))
"""
SCAN = """
import json, huggingface_hub
found = huggingface_hub.scan_cache_dir()
revisions = [(repo.repo_type, repo.repo_id, revision.commit_hash, sorted(revision.refs), revision.nb_files)
             for repo in found.repos for revision in repo.revisions]
print(json.dumps({"warnings": [str(warning) for warning in found.warnings], "revisions": sorted(revisions)}))
"""


def run(cache: Path, *command: str, **environ: str) -> str:
    """Run a process with the cache and without any network, unless `environ` says otherwise; return its stdout."""
    variables = {"PATH": os.environ["PATH"], "HOME": str(cache.parent), "HF_HUB_CACHE": str(cache)}
    variables |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"} | environ
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(cache: Path, calls: dict[str, tuple[str, dict[str, Any]]], **environ: str) -> dict[str, Any]:
    """Call huggingface_hub's functions, and return what each gave: text, or its error's class and the bases."""
    listed = json.dumps([(key, function, keywords) for key, (function, keywords) in calls.items()])
    told: dict[str, Any] = json.loads(run(cache, sys.executable, "-c", CALLS, listed, **environ))
    return told


def scan(cache: Path) -> dict[str, Any]:
    scanned: dict[str, Any] = json.loads(run(cache, sys.executable, "-c", SCAN))
    return scanned


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopHub]:
    with LoopHub() as server:
        first = server.add_repo("org/m", FILES)
        server.set_ref("org/m", "refs/tags/v1", first)
        server.set_ref("org/m", "refs/pr/1", first)
        server.add_commit("org/m", {"README.md": b"dev"}, revision="feature/x")
        server.add_repo("org/d", {"data/train.csv": b"a,b\n1,2\n"}, kind="dataset")
        server.add_repo("org/s", {"app.py": b"print()"}, kind="space")
        yield server


# -- it reads what we wrote


@pytest.fixture(scope="module", params=["links", "real files"])
def ours(request: pytest.FixtureRequest, hub: LoopHub, tmp_path_factory: pytest.TempPathFactory) -> Puller:
    puller = Puller.into(tmp_path_factory.mktemp("ours") / "hub", hub.endpoint, symlinks=request.param == "links")
    for revision in ("main", "feature/x", "v1", "refs/pr/1"):
        puller("org/m", revision=revision)
    puller("org/d", kind="dataset")
    puller("org/s", kind="space")
    return puller


@pytest.fixture(scope="module")
def loaded(ours: Puller, hub: LoopHub) -> dict[str, Any]:
    """What huggingface_hub finds offline in our cache, by function and revision."""
    calls: dict[str, tuple[str, dict[str, Any]]] = {}
    for revision in ("main", "feature/x", "v1", "refs/pr/1", commit_of(hub)):
        where = {"repo_id": "org/m", "revision": revision, "local_files_only": True}
        calls[f"snapshot {revision}"] = "snapshot_download", where
        calls[f"file {revision}"] = "hf_hub_download", where | {"filename": "sub/deep/n.txt"}
    for kind, name in (("dataset", "org/d"), ("space", "org/s")):
        calls[kind] = "snapshot_download", {"repo_id": name, "repo_type": kind, "local_files_only": True}
    return ask(ours.settings.hub_cache, calls)


def commit_of(hub: LoopHub, revision: str = "main") -> str:
    commit = hub._repos["model", "org/m"].commit(revision)
    assert commit is not None
    return commit.oid


@pytest.mark.parametrize("revision", ["main", "feature/x", "v1", "refs/pr/1", "the commit"])
def test_huggingface_hub_finds_our_snapshot_by(revision: str, loaded: dict[str, Any], hub: LoopHub) -> None:
    asked = commit_of(hub) if revision == "the commit" else revision
    snapshot = Path(loaded[f"snapshot {asked}"])
    expected = FILES | ({"README.md": b"dev"} if revision == "feature/x" else {})
    assert {path: (snapshot / path).read_bytes() for path in expected} == expected


@pytest.mark.parametrize("revision", ["main", "feature/x", "v1", "refs/pr/1", "the commit"])
def test_huggingface_hub_finds_our_file_by(revision: str, loaded: dict[str, Any], hub: LoopHub) -> None:
    asked = commit_of(hub) if revision == "the commit" else revision
    assert Path(loaded[f"file {asked}"]).read_bytes() == b"deep"


@pytest.mark.parametrize(("kind", "path"), [("dataset", "data/train.csv"), ("space", "app.py")])
def test_huggingface_hub_finds_our_other_kinds(kind: str, path: str, loaded: dict[str, Any]) -> None:
    assert (Path(loaded[kind]) / path).is_file()


def test_huggingface_hub_scans_our_cache_without_a_warning(ours: Puller, hub: LoopHub) -> None:
    found = scan(ours.settings.hub_cache)
    assert found["warnings"] == []
    assert ["model", "org/m", commit_of(hub), ["main", "refs/pr/1", "v1"], 4] in found["revisions"]


def test_hf_cache_ls_lists_our_repos(ours: Puller) -> None:
    hf = str(Path(sys.executable).with_name("hf"))
    listed = json.loads(run(ours.settings.hub_cache, hf, "cache", "ls", "--json"))
    assert {row["id"] for row in listed} == {"model/org/m", "dataset/org/d", "space/org/s"}


def test_a_part_of_a_repo_is_never_taken_for_all_of_it(hub: LoopHub, tmp_path: Path) -> None:
    Puller.into(tmp_path / "hub", hub.endpoint)("org/m", include=("*.json",))
    whole = {"repo_id": "org/m", "local_files_only": True}
    told = ask(
        tmp_path / "hub",
        {"whole": ("snapshot_download", whole), "part": ("snapshot_download", whole | {"allow_patterns": ["*.json"]})},
    )
    assert "IncompleteSnapshotError" in told["whole"]
    assert (Path(told["part"]) / "config.json").read_bytes() == FILES["config.json"]


def test_git_and_sha256sum_agree_with_every_blobs_name(hub: LoopHub, tmp_path: Path) -> None:
    Puller.into(tmp_path / "hub", hub.endpoint)("org/m")
    for blob in (tmp_path / "hub").glob("*--*/blobs/*"):
        command = ["git", "hash-object", "--no-filters"] if len(blob.name) == 40 else ["sha256sum"]
        done = subprocess.run([*command, str(blob)], capture_output=True, text=True, check=True)
        assert done.stdout.split()[0] == blob.name


# -- we read what it wrote


def download(
    cache: Path, hub: LoopHub, *, function: str = "snapshot_download", links: bool = True, **more: Any
) -> Path:
    """Let huggingface_hub fill the cache from the hub."""
    online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.endpoint}
    if not links:
        online["HF_HUB_DISABLE_SYMLINKS"] = "1"
    told = ask(cache, {"it": (function, {"repo_id": "org/m", **more})}, **online)["it"]
    assert isinstance(told, str), told
    hub.clear()
    return Path(told)


@pytest.fixture(scope="module", params=["links", "real files"])
def theirs(request: pytest.FixtureRequest, hub: LoopHub, tmp_path_factory: pytest.TempPathFactory) -> Puller:
    cache, links = tmp_path_factory.mktemp("theirs") / "hub", request.param == "links"
    for revision in ("main", "feature/x", "v1", "refs/pr/1"):
        download(cache, hub, links=links, revision=revision)
    return Puller.into(cache, hub.endpoint, symlinks=None if links else False)


@pytest.mark.parametrize("revision", ["main", "feature/x", "v1", "refs/pr/1"])
def test_we_resolve_its_refs(revision: str, theirs: Puller, hub: LoopHub) -> None:
    artifact = theirs.app.cache.resolve(Reference("hf", "org/m", REPO, revision))
    assert artifact.revision.commit == commit_of(hub, revision)


def test_we_miss_nothing_in_its_snapshots(theirs: Puller) -> None:
    cache = theirs.app.cache
    artifact = cache.resolve(Reference("hf", "org/m", REPO, "feature/x"))
    plan = plan_copy(artifact, list(artifact.manifest.files), lambda path, blob: cache.has_file(artifact, path, blob))
    assert (len(plan.files), plan.missing) == (5, ())


def test_its_commit_costs_us_no_request(theirs: Puller, hub: LoopHub) -> None:
    hub.clear()
    theirs("org/m", revision=commit_of(hub))
    assert hub.requests == []


def test_its_branch_costs_us_one_request(theirs: Puller, hub: LoopHub) -> None:
    hub.clear()
    theirs("org/m")
    assert [request.path for request in hub.requests] == ["/api/models/org/m/revision/main"]


def test_we_leave_its_snapshots_right(theirs: Puller) -> None:
    snapshot = theirs("org/m").path
    assert (unverified(snapshot), faults(theirs.settings.hub_cache)) == ([], [])


def test_it_still_loads_its_snapshot_after_our_pull(theirs: Puller) -> None:
    snapshot = theirs("org/m").path
    told = ask(theirs.settings.hub_cache, {"it": ("snapshot_download", {"repo_id": "org/m"})})
    assert told["it"] == str(snapshot)


def test_a_listing_that_only_its_user_may_read_is_made_readable(hub: LoopHub, tmp_path: Path) -> None:
    snapshot = download(tmp_path / "hub", hub)
    listing = snapshot.parent.parent / "trees" / f"{snapshot.name}.json"
    before = listing.stat().st_mode & 0o777
    Puller.into(tmp_path / "hub", hub.endpoint)("org/m")
    assert (before, listing.stat().st_mode & 0o777) == (0o600, 0o644)


def test_a_single_file_that_it_brought_is_not_fetched_again(hub: LoopHub, tmp_path: Path) -> None:
    download(tmp_path / "hub", hub, function="hf_hub_download", filename="model.safetensors")
    Puller.into(tmp_path / "hub", hub.endpoint)("org/m")
    assert bodies(hub, containing="xet-bridge") == []


@pytest.mark.parametrize("links", [True, False])
def test_its_real_files_are_never_lost_to_links(links: bool, hub: LoopHub, tmp_path: Path) -> None:
    download(tmp_path / "hub", hub, links=False)
    snapshot = Puller.into(tmp_path / "hub", hub.endpoint, symlinks=links)("org/m").path
    assert (unverified(snapshot), bodies(hub)) == ([], [])


def test_a_file_cut_short_on_disk_is_noticed_and_fetched_again(hub: LoopHub, tmp_path: Path) -> None:
    snapshot = download(tmp_path / "hub", hub)
    with (snapshot / "model.safetensors").open("r+b") as file:
        file.truncate(100)
    Puller.into(tmp_path / "hub", hub.endpoint)("org/m")
    assert unverified(snapshot) == []


def test_an_interrupted_download_of_its_is_gone_on_with(hub: LoopHub, tmp_path: Path) -> None:
    snapshot = download(tmp_path / "hub", hub)
    blob = (snapshot / "model.safetensors").resolve()
    blob.rename(blob.with_name(f"{blob.name}.0a1b2c3d.incomplete"))
    with blob.with_name(f"{blob.name}.0a1b2c3d.incomplete").open("r+b") as file:
        file.truncate(1000)
    Puller.into(tmp_path / "hub", hub.endpoint)("org/m")
    assert (unverified(snapshot), bodies(hub)) == ([], ["bytes=1000-2999"])


# -- the shared blob store


@pytest.fixture
def shared(hub: LoopHub, tmp_path: Path) -> Path:
    """Its cache after a Xet download: the blob is a link into a store that all repos share; return the payload."""
    snapshot = download(tmp_path / "hub", hub)
    blob = (snapshot / "model.safetensors").resolve()
    store = tmp_path / "hub" / "blobs"
    payload = store / "ab" / ("ab" * 32)
    payload.parent.mkdir(parents=True)
    (store / ".huggingface-shared-blobs").write_text("1\n")
    blob.rename(payload)
    payload.with_name(f"{payload.name}.refs").write_text(f"models--org--m/blobs/{blob.name}\n")
    payload.chmod(0o444)
    blob.symlink_to(f"../../blobs/ab/{payload.name}")
    return payload


@pytest.mark.parametrize("links", [True, False])
def test_a_blob_in_the_shared_store_is_there(shared: Path, links: bool, hub: LoopHub, tmp_path: Path) -> None:
    snapshot = Puller.into(tmp_path / "hub", hub.endpoint, symlinks=links)("org/m").path
    assert (unverified(snapshot), bodies(hub), scan(tmp_path / "hub")["warnings"]) == ([], [], [])


@pytest.mark.parametrize("links", [True, False])
def test_a_new_commit_leaves_the_shared_store_as_it_is(shared: Path, links: bool, hub: LoopHub, tmp_path: Path) -> None:
    before = shared.stat()
    puller = Puller.into(tmp_path / "hub", hub.endpoint, symlinks=links)
    snapshots = [puller("org/m", revision=revision).path for revision in ("feature/x", "main")]
    after = shared.stat()
    assert [unverified(snapshot) for snapshot in snapshots] == [[], []]
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)


def test_a_payload_cut_short_is_replaced_in_the_repo_and_left_alone_in_the_store(
    shared: Path, hub: LoopHub, tmp_path: Path
) -> None:
    os.truncate(shared, 10)
    snapshot = Puller.into(tmp_path / "hub", hub.endpoint)("org/m").path
    assert (unverified(snapshot), shared.stat().st_size) == ([], 10)
