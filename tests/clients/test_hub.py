"""huggingface_hub of today, the same without hf_xet, and the last of the line before, against the mirror."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from typing import Any

import pytest

from tests.clients.venvs import python_with
from tests.clients.world import Client, Told, Wanted, told_in
from tests.support.clients import MODES, OFFLINE, PULLING, Case
from tests.support.httpd import Reply, Request
from tests.support.loophub import LoopHub

pytestmark = pytest.mark.slow

Expected = Callable[[LoopHub], Any]
Run = tuple[str, str, str]  # client, script, mode


def safetensors(rows: int) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [rows, 16], "data_offsets": [0, rows * 64]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(number % 251 for number in range(rows * 64))


CARD = b"---\ntags:\n- loop\n---\n# A model\n"
MODEL = {
    "README.md": CARD, "config.json": b'{"model_type": "bert"}', "empty.txt": b"", "sub/deep/n.txt": b"deep",
    "model.safetensors": safetensors(40_000),
}  # fmt: skip
WEIGHTS, TOP = MODEL["model.safetensors"], [path for path in MODEL if "/" not in path]
WANTED = [
    Wanted("org/m", revisions=("main", "v1", "refs/pr/1", "feature/x")), Wanted("org/p"),
    Wanted("org/d", "dataset"), Wanted("org/s", "space"),
]  # fmt: skip


class TaggedHub(LoopHub):
    """A hub that tells a model's tags, as the Hub makes them of its card."""

    def _api(self, request: Request, kind: str, segments: list[str]) -> Reply:
        reply = super()._api(request, kind, segments)
        if isinstance(reply.body, bytes) and segments[:2] == ["org", "m"]:
            reply.body = reply.body.replace(b'"tags": []', b'"tags": ["loop"]')
        return reply


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopHub]:
    with TaggedHub() as server:
        first = server.add_repo("org/m", MODEL)
        server.set_ref("org/m", "refs/tags/v1", first)
        server.set_ref("org/m", "refs/pr/1", first)
        server.add_commit("org/m", {"NEW.md": b"new"}, revision="feature/x")
        server.add_repo("org/p", {"a.json": b"{}", "b.txt": b"b", "data/c.txt": b"c"})
        server.add_repo("org/d", {"data/train.csv": b"a,b\n1,2\n"}, kind="dataset")
        server.add_repo("org/s", {"app.py": b"print()"}, kind="space")
        yield server


def hashes(hub: LoopHub, name: str = "org/m", revision: str = "main", kind: str = "model") -> dict[str, str]:
    return {path: sha256(file.body).hexdigest() for path, file in hub.files(name, revision, kind=kind).items()}


def blobs(hub: LoopHub) -> dict[str, list[Any]]:
    return {path: [file.size, file.oid, file.sha256] for path, file in hub.files("org/m").items()}


def tree(hub: LoopHub) -> dict[str, int | None]:
    return {path: file.size for path, file in hub.files("org/m").items()} | {"sub": None, "sub/deep": None}


def commit(hub: LoopHub, revision: str = "main") -> str:
    found = hub._repos["model", "org/m"].commit(revision)
    assert found is not None
    return found.oid


def refs(hub: LoopHub) -> dict[str, str]:
    return {"main": commit(hub), "feature/x": commit(hub, "feature/x"), "v1": commit(hub), "1": commit(hub)}


def metadata(hub: LoopHub) -> list[Any]:
    file = hub.files("org/m")["model.safetensors"]
    return [commit(hub), file.sha256, file.size]


def is_so(hub: LoopHub) -> bool:
    return True


PULLS: dict[str, tuple[str, Expected]] = {
    "cli": ("`hf download`", hashes),
    "snapshot": ("snapshot_download, model", hashes),
    "tag": ("snapshot_download, tag", hashes),
    "pull_request": ("snapshot_download, pull request", hashes),
    "branch": ("snapshot_download, branch with a slash", lambda hub: hashes(hub, revision="feature/x")),
    "dataset": ("snapshot_download, dataset", lambda hub: hashes(hub, "org/d", kind="dataset")),
    "space": ("snapshot_download, space", lambda hub: hashes(hub, "org/s", kind="space")),
    "single": ("hf_hub_download", lambda hub: hashes(hub)["sub/deep/n.txt"]),
    "patterns": ("snapshot_download, patterns", lambda hub: ["a.json", "data/c.txt"]),
}
API: dict[str, tuple[str, Expected]] = {
    "model_info": ("HfApi.model_info, files_metadata", blobs),
    "model_info_sha": ("HfApi.model_info, revision", commit),
    "expand": ("HfApi.model_info, expand", lambda hub: sorted(MODEL)),
    "dataset_info": ("HfApi.dataset_info", lambda hub: ["data/train.csv"]),
    "space_info": ("HfApi.space_info", lambda hub: ["app.py"]),
    "tree": ("HfApi.list_repo_tree", tree),
    "tree_expanded": ("HfApi.list_repo_tree, expand", tree),
    "files": ("HfApi.list_repo_files", lambda hub: sorted(MODEL)),
    "paths": ("HfApi.get_paths_info", lambda hub: [["RepoFile", "config.json"], ["RepoFolder", "sub"]]),
    "refs": ("HfApi.list_repo_refs, pull requests", refs),
    "commits": ("HfApi.list_repo_commits", commit),
    "repo_exists": ("HfApi.repo_exists", lambda hub: [True, False]),
    "revision_exists": ("HfApi.revision_exists", lambda hub: [True, False]),
    "file_exists": ("HfApi.file_exists", lambda hub: [True, False]),
    "auth_check": ("HfApi.auth_check", lambda hub: [None, True]),
    "whoami": ("HfApi.whoami", lambda hub: ["name", "type"]),
    "metadata": ("get_hf_file_metadata", metadata),
    "safetensors": ("HfApi.get_safetensors_metadata", lambda hub: {"w": [40_000, 16]}),
    "missing_repo": ("RepositoryNotFoundError", is_so),
    "missing_revision": ("RevisionNotFoundError", is_so),
    "missing_file": ("EntryNotFoundError", is_so),
    "by_author": ("HfApi.list_models, author", lambda hub: ["org/m", "org/p"]),
    "by_search": ("HfApi.list_models, search", lambda hub: ["org/p"]),
    "by_filter": ("HfApi.list_models, filter", lambda hub: ["org/m"]),
    "limited": ("HfApi.list_models, limit", lambda hub: 1),
    "pages": ("paginate, a model a page", lambda hub: ["org/m", "org/p"]),
    "datasets": ("HfApi.list_datasets, author", lambda hub: ["org/d"]),
}
FILE_SYSTEM: dict[str, tuple[str, Expected]] = {
    "ls": ("HfFileSystem.ls", lambda hub: sorted(f"org/m/{path}" for path in (*TOP, "sub"))),
    "ls_dataset": ("HfFileSystem.ls, dataset", lambda hub: ["datasets/org/d/data"]),
    "glob": ("HfFileSystem.glob", lambda hub: ["org/m/empty.txt", "org/m/sub/deep/n.txt"]),
    "open": ("HfFileSystem.open, seek", lambda hub: WEIGHTS[1000:1016].hex()),
    "cat": ("HfFileSystem.cat_file", lambda hub: CARD.decode()),
    "cat_range": ("HfFileSystem.cat_file, range", lambda hub: WEIGHTS[10:30].hex()),
    "revision": ("HfFileSystem.cat_file, revision", lambda hub: "new"),
    "exists": ("HfFileSystem.exists", lambda hub: [True, False]),
}
SCRIPTS = {"hub_pull.py": PULLS, "hub_api.py": API, "hub_fs.py": FILE_SYSTEM}
NEW, NO_XET, OLD = "huggingface_hub", "huggingface_hub, HF_HUB_DISABLE_XET=1", "huggingface_hub 0.36"
RUNS = (
    [(NEW, script, mode) for script in SCRIPTS for mode in MODES]
    + [(NO_XET, "hub_pull.py", mode) for mode in (OFFLINE, PULLING)]
    + [(OLD, script, mode) for script in SCRIPTS for mode in (OFFLINE, PULLING)]
)


def case_of(client: str, script: str, case: str) -> Case:
    """Return a case with the modes it is proven in."""
    modes = tuple(mode for each, file, mode in RUNS if (each, file) == (client, script))
    return Case(client, SCRIPTS[script][case][0], modes)


CASES = [
    case_of(client, script, case)
    for client, script in dict.fromkeys((client, script) for client, script, _ in RUNS)
    for case in SCRIPTS[script]
]


def pairs(*scripts: str) -> list[Any]:
    """Return each run with each of its cases."""
    return [
        pytest.param(run, case, id="-".join((run[0], run[2], case)).replace(" ", "_"))
        for run in RUNS
        if run[1] in scripts
        for case in SCRIPTS[run[1]]
        if run[2] in case_of(*run[:2], case).modes
    ]


@pytest.fixture(scope="module")
def runs(hub: LoopHub, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Told]:
    """What each run told; it is run when it is first asked for."""

    @cache
    def told(client: str, script: str, mode: str) -> Told:
        folder = tmp_path_factory.mktemp("hub")
        python = python_with("huggingface_hub==0.36.2") if client == OLD else sys.executable
        environ = {"HF_HUB_DISABLE_XET": "1"} if client == NO_XET else {}
        return told_in(mode, folder, hub, Client(client, script, folder / "client", python, environ), WANTED)

    return told


@pytest.mark.parametrize(("run", "case"), pairs("hub_pull.py"))
def test_what_is_pulled_is_what_upstream_has_and_is_there_offline(
    run: Run, case: str, runs: Callable[..., Told], hub: LoopHub
) -> None:
    told, (_, expected) = runs(*run), PULLS[case]
    with told.proven(case_of(*run[:2], case)):
        assert told.value(case) == told.again(case) == expected(hub)


@pytest.mark.parametrize(("run", "case"), pairs("hub_api.py", "hub_fs.py"))
def test_what_the_mirror_answers_is_what_upstream_has(
    run: Run, case: str, runs: Callable[..., Told], hub: LoopHub
) -> None:
    told, (_, expected) = runs(*run), SCRIPTS[run[1]][case]
    with told.proven(case_of(*run[:2], case)):
        assert told.value(case) == expected(hub)
