"""ModelScope's repos pulled from a ModelScope on loopback, beside its own client; references are test_ids_ms.py's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

import hubcache.sources.modelscope as module
from hubcache.cache.store import Cache
from hubcache.core.artifact import Artifact, Manifest, RepoId, Revision, parse_path
from hubcache.core.gitobj import lfs_pointer
from hubcache.core.ids import parse
from hubcache.core.origins import Origin
from hubcache.errors import IntegrityError, OfflineError, SourceUnavailable
from tests.support.commandline import files_of
from tests.support.hubrepo import git_id
from tests.support.loopscope import LoopScope
from tests.support.scopemirror import FILES, TOKEN, Mirror
from tests.support.wholeness import faults, unverified


@pytest.fixture
def scope() -> Iterator[LoopScope]:
    with LoopScope() as server:
        yield server


@pytest.fixture
def mirror(scope: LoopScope, tmp_path: Path) -> Mirror:
    return Mirror(Cache(tmp_path / "hub"), scope.endpoint)


# -- what arrives


def test_every_file_arrives_and_huggingface_hub_finds_it_offline(scope: LoopScope, mirror: Mirror) -> None:
    commit = scope.add_repo("org/name", FILES)
    snapshot = mirror.pull()
    assert (snapshot.name, files_of(snapshot), unverified(snapshot)) == (commit, FILES, [])
    assert snapshot_download("org/name", cache_dir=mirror.cache.root, local_files_only=True) == str(snapshot)
    assert faults(mirror.cache.root) == []


def test_resolving_costs_one_listing_and_no_file(scope: LoopScope, mirror: Mirror) -> None:
    scope.add_repo("org/name", FILES)
    mirror.resolve()
    listing = "/api/v1/models/org/name/repo/files?Revision=master&Recursive=True"
    assert [request.path for request in scope.requests] == [listing]


def test_only_what_is_in_lfs_has_a_pointer(scope: LoopScope, mirror: Mirror) -> None:
    scope.add_repo("org/name", FILES)
    entries = mirror.resolve().manifest.files
    weights = entries[parse_path("model.safetensors")]
    assert weights.pointer == git_id("blob", lfs_pointer(weights.blob))
    assert entries[parse_path("config.json")].pointer is None


def test_a_dataset_comes_page_by_page(scope: LoopScope, mirror: Mirror) -> None:
    files = {f"data/{number:03}.csv": b"%d" % number for number in range(450)}
    scope.add_repo("org/name", files, kind="dataset")
    artifact = mirror.resolve("ms:datasets/org/name")
    assert set(artifact.manifest.files) == set(files)
    assert len(scope.requests) == 3


def test_a_listing_that_ends_early_is_continued_folder_by_folder(
    scope: LoopScope, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LISTING_LIMIT", 12)
    scope.limit = 12
    files = {f"{top}/{sub}/{number}": b"x" for top in "ab" for sub in "cd" for number in range(8)} | {"e": b"e"}
    scope.add_repo("org/name", files)
    assert set(mirror.resolve().manifest.files) == set(files)
    scope.add_repo("org/name", {f"a/{number}": b"x" for number in range(12)})
    with pytest.raises(SourceUnavailable, match="does not list all of org/name/a"):
        mirror.resolve()


# -- which commit


def test_the_commit_is_the_real_one_of_a_branch_a_tag_or_any_commit(scope: LoopScope, mirror: Mirror) -> None:
    first = scope.add_repo("org/name", {"a": b"1"})
    scope.set_tag("org/name", "v1", first)
    branch = scope.add_commit("org/name", {"a": b"3"}, revision="feature/x")
    last = scope.add_commit("org/name", {"b": b"2"})
    asked = {"ms:org/name": last, "ms:org/name@main": last, "ms:org/name@v1": first, "ms:org/name@feature/x": branch}
    asked |= {f"ms:org/name@{first}": first, f"ms:org/name@{first[:8]}": first}
    assert {text: mirror.resolve(text).revision.commit for text in asked} == asked
    scope.full_commit = True
    assert {text: mirror.resolve(text).revision.commit for text in asked} == asked


@pytest.mark.parametrize("silent", [False, True])
def test_a_commit_that_no_row_tells_is_asked_of_git(scope: LoopScope, mirror: Mirror, silent: bool) -> None:
    scope.add_repo("org/name", {"a": b"1", "b": b"2"})
    commit = scope.add_commit("org/name", {"b": None})
    scope.no_commit = silent
    artifact = mirror.resolve()
    assert (artifact.revision.commit, list(artifact.manifest.files)) == (commit, ["a"])
    refs = ("git", "ls-remote", f"{scope.endpoint}/models/org/name.git", "refs/heads/master")
    told = subprocess.run(refs, capture_output=True, text=True, timeout=30, check=True)
    assert told.stdout.split() == [commit, "refs/heads/master"]


def test_main_is_main_where_there_is_no_master(scope: LoopScope, mirror: Mirror) -> None:
    commit = scope.add_repo("org/name", FILES, revision="main")
    assert mirror.resolve().revision == Revision("main", commit)


def test_a_known_commit_costs_no_request(scope: LoopScope, mirror: Mirror) -> None:
    commit = scope.add_repo("org/name", FILES)
    mirror.pull()
    scope.clear()
    assert mirror.resolve(f"ms:org/name@{commit}").revision == Revision(commit, commit)
    assert scope.requests == []


def test_another_commit_than_the_one_asked_for_is_refused(scope: LoopScope, mirror: Mirror) -> None:
    scope.set_tag("org/name", "0" * 40, scope.add_repo("org/name", FILES))
    with pytest.raises(IntegrityError, match="where org/name@0000"):
        mirror.resolve(f"ms:org/name@{'0' * 40}")


# -- which refs


def cache_main_of_the_hub(cache: Cache) -> str:
    artifact = Artifact(
        RepoId("hf", "model", "org/name"), Revision("main", "a" * 40), Manifest({}), origin="https://hub"
    )
    return cache.commit(artifact, parse("org/name")).name


def test_its_master_is_main_where_the_hubs_is_not_cached(scope: LoopScope, mirror: Mirror) -> None:
    scope.add_repo("org/name", FILES)
    mirror.pull()
    commit = scope.add_commit("org/name", {"config.json": b"new"})
    mirror.pull()
    assert mirror.refs() == {"main": commit, "modelscope/master": commit}
    assert mirror.cache.resolve(parse("org/name")).revision.commit == commit


def test_the_hubs_main_stays_the_hubs(scope: LoopScope, mirror: Mirror) -> None:
    theirs, ours = cache_main_of_the_hub(mirror.cache), scope.add_repo("org/name", FILES)
    mirror.pull()
    assert mirror.refs() == {"main": theirs, "modelscope/master": ours}
    assert mirror.lines == [
        "org/name@main stays what it is, from hf:org/name; ModelScope's is the revision modelscope/master"
    ]
    assert mirror.cache.resolve(parse("org/name")).revision == Revision("main", theirs)
    assert mirror.cache.resolve(parse("ms:org/name")).revision == Revision("modelscope/master", ours)


def test_a_repo_that_only_the_hub_brought_is_no_copy_of_modelscopes(mirror: Mirror) -> None:
    cache_main_of_the_hub(mirror.cache)
    with pytest.raises(OfflineError):
        mirror.cache.resolve(parse("ms:org/name"))


def test_a_tag_has_a_ref_and_a_commit_none(scope: LoopScope, mirror: Mirror) -> None:
    commit = scope.add_repo("org/name", FILES)
    scope.set_tag("org/name", "v1", commit)
    mirror.pull(f"ms:org/name@{commit}")
    assert mirror.refs() == {}
    mirror.pull("ms:org/name@v1")
    assert mirror.refs() == {"v1": commit, "modelscope/v1": commit}


# -- the oracle: ModelScope's own client, unmodified

CLIENT = """
import sys
from modelscope_hub import HubApi
api = HubApi(endpoint=sys.argv[1], token="ms-secret")
api.download_repo(*sys.argv[2:4], revision=sys.argv[4], local_dir=sys.argv[5])
"""


@pytest.fixture(scope="module")
def modelscope(request: pytest.FixtureRequest) -> Path:
    """An interpreter with modelscope-hub 0.5.1, installed once below pytest's cache folder."""
    folder = Path(request.config.cache.mkdir("modelscope-hub-0.5.1"))  # type: ignore[union-attr]  # there is one
    python, ready = folder / "venv/bin/python", folder / "ready"
    if not ready.exists():
        uv = Path(sys.executable).with_name("uv")
        if not uv.exists():
            pytest.skip("no uv to install modelscope-hub==0.5.1 with")
        # uv does not read pip's settings: a local wheel folder has to be handed over.
        environ = {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", ""), **os.environ}
        install = (uv, "pip", "install", "-q", "--python", python, "modelscope-hub==0.5.1")
        for command in ((uv, "venv", "-q", "--clear", "--python", sys.executable, folder / "venv"), install):
            done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=280, check=False)
            if done.returncode:
                pytest.skip(f"modelscope-hub==0.5.1 cannot be installed here: {done.stderr.strip()[-300:]}")
        ready.touch()
    return python


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "revision"), [("model", "master"), ("model", "v1"), ("dataset", "master")])
def test_modelscopes_own_client_downloads_the_same_bytes(
    modelscope: Path, scope: LoopScope, mirror: Mirror, tmp_path: Path, kind: str, revision: str
) -> None:
    scope.set_tag("org/name", "v1", scope.add_repo("org/name", FILES, kind=kind, token=TOKEN), kind=kind)
    scope.add_commit("org/name", {"config.json": b"newer"}, kind=kind)
    mirror.tokens = {Origin.of(scope.endpoint): TOKEN}
    theirs = tmp_path / "theirs"
    command = (modelscope, "-c", CLIENT, scope.endpoint, "org/name", kind, revision, theirs)
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert files_of(theirs) == files_of(mirror.pull(f"ms:{kind}s/org/name@{revision}"))
